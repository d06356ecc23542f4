"""What was begun is not lost, and stays with its conversation; what is sent is seen at once."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import HeldRequests, OpenPage, Visitor, operation, wait_until
from tests.support.processes import eventually

CONTENT = "**/api/attachments/*/content*"


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


@pytest.fixture
def field(visitor: Visitor) -> Locator:
    return visitor.page.get_by_label("Message", exact=True)


def go_to(visitor: Visitor, title: str) -> None:
    visitor.page.get_by_role("link", name=title, exact=True).click()
    expect(visitor.page.locator("#title")).to_have_text(title)
    expect(visitor.page.locator(".user_message")).to_have_count(1)


def new_conversation(visitor: Visitor) -> None:
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(visitor.page.locator("#welcome")).to_be_visible()


def test_what_is_being_written_stays_with_its_conversation(visitor: Visitor, field: Locator, tmp_path: Path) -> None:
    page = visitor.page
    visitor.send_message("task")
    new_conversation(visitor)
    visitor.send_message("card")
    field.fill("about the card")
    file = tmp_path / "a.txt"
    file.write_text("Hello.")
    page.locator("#files").set_input_files(file)
    expect(page.locator(".chip:not(.uploading)")).to_have_count(1)
    go_to(visitor, "task")
    expect(field).to_have_value("")
    expect(page.locator(".chip")).to_have_count(0)
    field.fill("about the task")
    new_conversation(visitor)
    expect(field).to_have_value("")
    field.fill("about something new")
    go_to(visitor, "card")
    expect(field).to_have_value("about the card")
    expect(page.locator(".chip")).to_contain_text("a.txt")
    page.go_back()
    expect(field).to_have_value("about something new")
    # And nowhere else after it was sent.
    go_to(visitor, "card")
    visitor.send_message("about the card")
    new_conversation(visitor)
    go_to(visitor, "task")
    expect(field).to_have_value("about the task")
    page.get_by_role("link", name="card", exact=True).click()
    expect(page.locator(".user_message").last).to_contain_text("about the card")
    expect(field).to_have_value("")


def test_what_is_being_written_outlives_a_reload(visitor: Visitor, field: Locator) -> None:
    visitor.send_message("Hello")
    visitor.answer.get_by_role("button", name="Quote").click()
    field.fill("Half a\nmessage")
    visitor.page.reload()
    expect(field).to_have_value("Half a\nmessage")
    expect(visitor.page.locator("#quote")).to_contain_text("You said: Hello")
    # Esc takes the quotation back when there is no answer to stop.
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator("#quote")).to_be_hidden()
    visitor.page.reload()
    expect(field).to_have_value("Half a\nmessage")
    expect(visitor.page.locator("#quote")).to_be_hidden()


def test_what_is_written_while_a_first_answer_comes_belongs_to_it(visitor: Visitor, field: Locator) -> None:
    field.fill("slow")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    field.fill("the next")
    visitor.page.get_by_role("button", name="Stop").click()
    visitor.wait_for_turn_end()
    new_conversation(visitor)
    expect(field).to_have_value("")
    go_to(visitor, "slow")
    expect(field).to_have_value("the next")


def test_what_one_user_writes_no_other_sees(visitor: Visitor, field: Locator) -> None:
    field.fill("A secret")
    visitor.page.get_by_label("User", exact=True).select_option("bob")
    expect(field).to_have_value("")
    visitor.page.get_by_label("User", exact=True).select_option(visitor.user)
    expect(field).to_have_value("A secret")


def test_answers_that_were_begun_are_there_again(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("questions")
    page.get_by_label("M", exact=True).check()
    page.locator(".questions textarea").fill("as a gift")
    new_conversation(visitor)
    go_to(visitor, "questions")
    expect(page.get_by_label("M", exact=True)).to_be_checked()
    expect(page.locator(".questions textarea")).to_have_value("as a gift")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator(".questions")).to_contain_text("as a gift")
    # The keyboard goes on where it is of use.
    visitor.wait_for_turn_end()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_a_message_is_seen_before_the_server_has_answered(visitor: Visitor, field: Locator) -> None:
    page = visitor.page
    held = HeldRequests(visitor, "threads.create")
    field.fill("Hello there")
    page.keyboard.press("Enter")
    held.wait()
    expect(page.locator(".user_message")).to_have_text(re.compile("Hello there"))
    expect(page.locator("#welcome")).to_be_hidden()
    held.release()
    visitor.wait_for_turn_end("Hello there")
    expect(page.locator(".user_message")).to_have_count(1)
    expect(page.locator(".user_message")).to_have_attribute("data-id", re.compile("^msg_"))


@pytest.mark.parametrize("leave", ["stop", "go", "reload"])
def test_a_message_that_has_not_gone_out_is_back_in_its_field(visitor: Visitor, field: Locator, leave: str) -> None:
    page = visitor.page
    held = HeldRequests(visitor, "threads.create")
    field.fill("Not yet sent")
    page.keyboard.press("Enter")
    held.wait()
    expect(field).to_have_value("")
    acts: dict[str, Callable[[], object]] = {
        "stop": lambda: page.keyboard.press("Escape"),
        "go": lambda: new_conversation(visitor),
        "reload": page.reload,
    }
    acts[leave]()
    expect(field).to_have_value("Not yet sent")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator(".user_message")).to_have_count(0)
    page.unroute("**/api/chatkit")


@pytest.mark.parametrize(
    ("stream", "reason"),
    [('data: {"type": "error", "message": "No.", "allow_retry": true}\n\n', "No."), ("", "The connection was lost.")],
    ids=["an error", "nothing"],
)
def test_a_message_is_only_stored_when_the_server_says_so(
    visitor: Visitor, field: Locator, stream: str, reason: str
) -> None:
    page = visitor.page
    page.route(
        "**/api/chatkit",
        lambda route: (
            route.fulfill(body=stream, content_type="text/event-stream")
            if operation(route) == "threads.create"
            else route.continue_()
        ),
    )
    field.fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#ended")).to_have_text(f"{reason} Your text is back in its field.")
    expect(field).to_have_value("Hello")
    expect(page.locator(".user_message")).to_have_count(0)
    page.unroute("**/api/chatkit")
    visitor.wait_for_turn_end()
    page.keyboard.press("Enter")
    visitor.wait_for_turn_end("Hello")
    expect(page.locator(".user_message")).to_have_count(1)


@pytest.mark.parametrize("leave", ["reload", "another"])
def test_what_the_server_had_without_the_page_knowing_is_stored_once(
    visitor: Visitor, field: Locator, leave: str
) -> None:
    page = visitor.page
    visitor.send_message("card")
    taken: list[Route] = []

    def take(route: Route) -> None:
        if operation(route) != "threads.add_user_message":
            route.continue_()
            return
        # All of it has happened, and nothing of it is told.
        route.fetch()
        taken.append(route)

    page.route("**/api/chatkit", take)
    field.fill("Once")
    page.keyboard.press("Enter")
    wait_until(page, lambda: bool(taken))
    if leave == "another":
        new_conversation(visitor)
        page.unroute("**/api/chatkit")
        visitor.send_message("task")
        page.get_by_role("link", name="card", exact=True).click()
    else:
        page.reload()
        page.unroute("**/api/chatkit")
    expect(field).to_have_value("Once")
    visitor.wait_for_turn_end("Once")
    page.keyboard.press("Enter")
    expect(field).to_have_value("")
    visitor.wait_for_turn_end("Once")
    page.reload()
    visitor.wait_for_turn_end("Once")
    expect(page.locator(".user_message")).to_have_count(2)


def test_what_is_written_while_the_page_begins_belongs_where_its_address_says(visitor: Visitor, field: Locator) -> None:
    page = visitor.page
    visitor.send_message("task")
    held = HeldRequests(visitor, "threads.list")
    page.reload()
    held.wait()
    field.fill("early")
    held.release()
    expect(page.locator("main:not([aria-busy])")).to_be_attached()
    expect(field).to_have_value("early")
    new_conversation(visitor)
    expect(field).to_have_value("")
    go_to(visitor, "task")
    expect(field).to_have_value("early")


def test_a_full_memory_of_the_tab_shows_nothing_that_is_old(visitor: Visitor, field: Locator) -> None:
    visitor.send_message("task")
    field.fill("first")
    visitor.page.evaluate("sessionStorage.setItem('much', 'x'.repeat(5 * 1024 * 1024 - 4000))")
    much = "second " + "x" * 20_000
    field.fill(much)
    new_conversation(visitor)
    go_to(visitor, "task")
    expect(field).to_have_value(much)
    visitor.page.reload()
    visitor.wait_for_turn_end("task")
    expect(field).to_have_value("")


def test_who_is_too_early_is_told_so_until_it_is_no_longer_true(visitor: Visitor, field: Locator) -> None:
    page = visitor.page
    visitor.send_message("task")
    new_conversation(visitor)
    held = HeldRequests(visitor, "items.list")
    page.get_by_role("link", name="task", exact=True).click()
    held.wait()
    expect(page.locator("#title")).to_have_text("task")
    field.fill("early")
    page.keyboard.press("Enter")
    notice = page.locator(".notice").filter(has_text="Wait until the conversation has loaded.")
    expect(notice).to_be_visible()
    expect(page.locator("#progress")).to_have_text("Loading …")
    held.release()
    expect(notice).to_have_count(0)
    expect(page.locator("#progress")).to_be_hidden()
    expect(field).to_have_value("early")


def test_a_double_click_on_send_does_not_stop_the_answer(visitor: Visitor, field: Locator) -> None:
    field.fill("slow")
    visitor.page.get_by_role("button", name="Send", exact=True).dblclick(delay=30)
    expect(visitor.answer).to_contain_text("and what you have read of it stays.")
    expect(visitor.page.locator("#stop")).to_be_visible()
    visitor.page.wait_for_timeout(700)
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.locator("#ended")).to_contain_text("Stopped.")


def test_many_files_are_taken_a_few_at_a_time(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    files = [tmp_path / f"{number}.txt" for number in range(10)]
    for file in files:
        file.write_text(file.name)
    held: list[Route] = []

    def at_least(count: int) -> Callable[[], bool]:
        return lambda: len(held) >= count

    page.route(CONTENT, lambda route: held.append(route))  # noqa: PLW0108 - as the driver wants it
    page.locator("#files").set_input_files(files)
    for released in range(10):
        expected = min(10, released + 3)
        wait_until(page, at_least(expected))
        page.wait_for_timeout(100)
        assert len(held) == expected
        held[released].continue_()
    expect(page.locator(".chip:not(.uploading)")).to_have_count(10)
    expect(page.locator("#notices")).to_be_empty()
    page.unroute(CONTENT)
    visitor.send_message("All of them")
    expect(page.locator(".user_message .file")).to_have_count(10)


def test_an_upload_that_has_to_wait_is_tried_again(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("Hello.")
    visitor.expected = ["429"]
    refused: list[Route] = []

    def refuse(route: Route) -> None:
        if len(refused) == 2:
            route.continue_()
            return
        refused.append(route)
        route.fulfill(status=429, headers={"Retry-After": "1"}, json={"code": "too_many_requests", "message": "Wait."})

    visitor.page.route(CONTENT, refuse)
    visitor.page.locator("#files").set_input_files(file)
    expect(visitor.page.locator(".chip:not(.uploading)")).to_have_count(1)
    assert len(refused) == 2
    visitor.page.unroute(CONTENT)


def test_where_somebody_was_reading_is_kept(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("long")
    visitor.scroll_to(900)
    expect(page.locator("#to-end")).to_be_visible()
    new_conversation(visitor)
    expect(page.locator("#to-end")).to_be_hidden()
    go_to(visitor, "long")
    top = page.locator("#log")
    eventually(lambda: abs(top.evaluate("log => log.scrollTop") - 900) < 3)
    page.reload()
    eventually(lambda: abs(top.evaluate("log => log.scrollTop") - 900) < 3)
    # And the end, where it was the end.
    page.get_by_role("button", name="To the newest message").click()
    new_conversation(visitor)
    go_to(visitor, "long")
    eventually(lambda: top.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 3)


def test_a_retry_that_comes_to_nothing_leaves_the_reader_where_they_are(visitor: Visitor) -> None:
    page = visitor.page
    log = page.locator("#log")
    visitor.send_message("long")
    visitor.send_message("citation")
    visitor.scroll_to(300)
    page.reload()
    eventually(lambda: abs(log.evaluate("log => log.scrollTop") - 300) < 3)
    visitor.wait_for_turn_end("citation")
    visitor.scroll_to(1_000_000)
    held = HeldRequests(visitor, "threads.retry_after_item")
    visitor.answer.get_by_role("button", name="Try again").click()
    held.wait()
    expect(visitor.page.locator(".item")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator("#ended")).to_contain_text("Stopped.")
    expect(visitor.page.locator(".item")).to_have_count(4)
    visitor.wait_for_turn_end("citation")
    # And stays there when all of it is drawn.
    page.wait_for_timeout(500)
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 100
    page.unroute("**/api/chatkit")
