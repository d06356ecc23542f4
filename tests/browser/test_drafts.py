"""What was begun is not lost, and stays with its conversation; what is sent is seen at once."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import Held, Visit, Visitor
from tests.support.processes import eventually

CONTENT = "**/api/attachments/*/content*"


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    return visit()


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
    visitor.say("task")
    new_conversation(visitor)
    visitor.say("card")
    field.fill("about the card")
    visitor.page.evaluate("getSelection().selectAllChildren(document.querySelector('.user_message .bubble'))")
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
    visitor.say("about the card")
    new_conversation(visitor)
    go_to(visitor, "task")
    expect(field).to_have_value("about the task")
    page.get_by_role("link", name="card", exact=True).click()
    expect(page.locator(".user_message").last).to_contain_text("about the card")
    expect(field).to_have_value("")


def test_what_is_being_written_outlives_a_reload(visitor: Visitor, field: Locator) -> None:
    visitor.say("Hello")
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
    visitor.settle()
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
    visitor.say("questions")
    page.get_by_label("M", exact=True).check()
    page.locator(".questions textarea").fill("as a gift")
    new_conversation(visitor)
    go_to(visitor, "questions")
    expect(page.get_by_label("M", exact=True)).to_be_checked()
    expect(page.locator(".questions textarea")).to_have_value("as a gift")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator(".questions")).to_contain_text("as a gift")
    # The keyboard goes on where it is of use.
    visitor.settle()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_a_message_is_seen_before_the_server_has_answered(visitor: Visitor, field: Locator) -> None:
    page = visitor.page
    held = Held(visitor, "threads.create")
    field.fill("Hello there")
    page.keyboard.press("Enter")
    held.wait()
    expect(page.locator(".user_message")).to_have_text(re.compile("Hello there"))
    expect(page.locator("#welcome")).to_be_hidden()
    held.release()
    visitor.settle("Hello there")
    expect(page.locator(".user_message")).to_have_count(1)
    expect(page.locator(".user_message")).to_have_attribute("data-id", re.compile("^msg_"))


@pytest.mark.parametrize("leave", ["stop", "go", "reload"])
def test_a_message_that_has_not_gone_out_is_back_in_its_field(visitor: Visitor, field: Locator, leave: str) -> None:
    page = visitor.page
    held = Held(visitor, "threads.create")
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
    page.route(CONTENT, lambda route: held.append(route))  # noqa: PLW0108 - as the driver wants it
    page.locator("#files").set_input_files(files)
    for released in range(10):
        for _ in range(500):
            if len(held) > released + (2 if released < 7 else 0):
                break
            # The driver takes routes while it is asked for something.
            page.wait_for_timeout(20)
        page.wait_for_timeout(100)
        assert len(held) == min(10, released + 3)
        held[released].continue_()
    expect(page.locator(".chip:not(.uploading)")).to_have_count(10)
    expect(page.locator("#notices")).to_be_empty()
    page.unroute(CONTENT)
    visitor.say("All of them")
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
    visitor.say("long")
    page.locator("#log").evaluate("log => (log.scrollTop = 900)")
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
