"""An answer goes on while its page is reloaded, closed or elsewhere; Stop ends it, in whichever page."""

import pytest
from playwright.sync_api import Route, expect

from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.browser.conftest import SLOW, HeldRequests, OpenPage, Visitor, turns
from tests.support.processes import ChatProcess, eventually, texts

LIVE = "**/api/threads/*/live"
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def begin_slow_answer(visitor: Visitor) -> None:
    visitor.page.get_by_label("Message", exact=True).fill("slow")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is a slow answer")


def shown(visitor: Visitor) -> str:
    return str(visitor.answer.locator(".markdown").inner_text())


def listed(visitor: Visitor, demo: ChatProcess) -> str:
    """The answer as ``items.list`` has it."""
    items = demo.client(visitor.user).items(visitor.thread)
    return texts([item for item in items if item["type"] == "assistant_message"])[-1]


def states(visitor: Visitor, demo: ChatProcess) -> list[str]:
    database = EmbeddedPostgres(demo.directory / ".data" / "postgres").running_url()
    assert database is not None
    return turns(database, visitor.user)


def becomes_whole(visitor: Visitor, demo: ChatProcess) -> None:
    expect(visitor.answer.locator(".markdown")).to_have_text(SLOW)
    visitor.wait_for_turn_end("slow")
    expect(visitor.page.locator("#ended")).to_be_hidden()
    shown_ids = visitor.page.locator(".item").evaluate_all("items => items.map((item) => item.dataset.id)")
    stored = [item["id"] for item in demo.client(visitor.user).items(visitor.thread) if item["type"] != "end_of_turn"]
    assert shown_ids == stored
    assert states(visitor, demo) == ["completed"]


def test_an_answer_goes_on_after_a_reload_and_becomes_whole(visitor: Visitor, demo: ChatProcess) -> None:
    begin_slow_answer(visitor)
    seen, kept = shown(visitor), listed(visitor, demo)
    visitor.page.reload()
    expect(visitor.answer).to_contain_text(kept.strip())
    expect(visitor.answer).to_contain_text(seen.strip())
    # The composer is as it was while the answer came.
    expect(visitor.page.locator("#stop")).to_be_visible()
    expect(visitor.page.locator("#send")).to_be_hidden()
    field = visitor.page.get_by_label("Message", exact=True)
    field.fill("And another thing")
    field.press("Enter")
    expect(visitor.page.get_by_role("status").filter(has_text="Wait until the answer is finished")).to_be_visible()
    moving = len(shown(visitor))
    eventually(lambda: moving < len(shown(visitor)) < len(SLOW))
    becomes_whole(visitor, demo)
    # The next message is a turn of its own.
    field.press("Enter")
    visitor.wait_for_turn_end("And another thing")
    assert states(visitor, demo) == ["completed", "completed"]


def test_what_a_reload_shows_is_never_shorter_than_what_is_listed(visitor: Visitor, demo: ChatProcess) -> None:
    begin_slow_answer(visitor)
    visitor.page.add_init_script(
        """window.lengths = [];
        const record = () => {
          const text = document.querySelector(".assistant_message .markdown")?.innerText;
          if (text) window.lengths.push(text.length);
          requestAnimationFrame(record);
        };
        addEventListener("DOMContentLoaded", record);"""
    )
    for _ in range(5):
        kept = listed(visitor, demo)
        visitor.page.reload()
        expect(visitor.answer).to_contain_text("This is a slow answer")
        visitor.page.wait_for_timeout(700)
        lengths = visitor.page.evaluate("window.lengths")
        assert lengths[0] >= len(kept.strip())
        assert lengths == sorted(lengths)
    becomes_whole(visitor, demo)


@pytest.mark.parametrize("is_reloaded", [False, True], ids=["at once", "after a reload"])
def test_stop_ends_the_turn_and_keeps_its_text(visitor: Visitor, demo: ChatProcess, is_reloaded: bool) -> None:
    begin_slow_answer(visitor)
    seen = shown(visitor)
    if is_reloaded:
        visitor.page.reload()
        expect(visitor.answer).to_contain_text(seen)
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.locator("#ended")).to_contain_text("Stopped.")
    # The stream has ended by itself, when the end was stored.
    assert states(visitor, demo) == ["stopped"]
    visitor.wait_for_turn_end("slow")
    kept = listed(visitor, demo).strip()
    assert kept.startswith(seen.strip())
    assert len(kept) < len(SLOW)
    assert shown(visitor).strip() == kept
    visitor.page.reload()
    expect(visitor.page.locator("#ended")).to_contain_text("Stopped.")
    assert shown(visitor).strip() == kept
    # And it can be tried again.
    visitor.page.locator("#ended button").click()
    expect(visitor.answer.locator(".markdown")).to_have_text(SLOW)
    expect(visitor.page.locator(".item")).to_have_count(2)


def test_an_answer_that_ends_while_nobody_looks_is_whole_on_the_next_visit(visitor: Visitor, demo: ChatProcess) -> None:
    begin_slow_answer(visitor)
    thread = visitor.thread
    visitor.page.goto("about:blank")
    assert states(visitor, demo) == ["running"]
    eventually(lambda: states(visitor, demo) == ["completed"])
    visitor.open_page(thread)
    becomes_whole(visitor, demo)


def test_an_answer_goes_on_while_another_conversation_is_open(visitor: Visitor, demo: ChatProcess) -> None:
    page = visitor.page
    begin_slow_answer(visitor)
    page.get_by_role("button", name="New conversation", exact=True).click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#send")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator(".item")).to_have_count(0)
    page.get_by_role("link", name="slow").click()
    expect(page.locator("#stop")).to_be_visible()
    expect(visitor.answer).to_contain_text("This is a slow answer")
    assert states(visitor, demo) == ["running"]
    becomes_whole(visitor, demo)


def test_a_second_page_follows_the_answer_and_can_stop_it(
    open_page: OpenPage, visitor: Visitor, demo: ChatProcess
) -> None:
    begin_slow_answer(visitor)
    second = open_page(user=visitor.user)
    second.open_page(visitor.thread)
    second.page.reload()
    expect(second.answer).to_contain_text("This is a slow answer")
    moving = len(shown(second))
    eventually(lambda: len(shown(second)) > moving)
    second.page.get_by_role("button", name="Stop").click()
    for one in (visitor, second):
        one.wait_for_turn_end("slow")
    assert states(visitor, demo) == ["stopped"]
    assert shown(visitor).strip() == shown(second).strip() == listed(visitor, demo).strip()


def test_a_page_that_is_looked_at_again_shows_what_others_have_added(
    open_page: OpenPage, visitor: Visitor, demo: ChatProcess
) -> None:
    visitor.send_message("task")
    second = open_page(user=visitor.user)
    second.open_page(visitor.thread)
    second.page.reload()
    expect(second.page.locator(".item")).to_have_count(2)
    begin_slow_answer(visitor)
    second.page.evaluate(LOOK)
    expect(second.answer).to_contain_text("This is a slow answer")
    expect(second.page.locator("#stop")).to_be_visible()
    visitor.page.keyboard.press("Escape")
    second.wait_for_turn_end("slow")
    demo.client(visitor.user).post_message(visitor.thread, "Hello")
    second.page.evaluate(LOOK)
    expect(second.answer).to_contain_text("You said: Hello")
    expect(second.page.locator(".user_message")).to_have_count(3)


def test_what_was_read_before_a_message_was_sent_does_not_remove_it(visitor: Visitor) -> None:
    visitor.send_message("task")
    slow = HeldRequests(visitor, "items.list")
    visitor.page.evaluate(LOOK)
    slow.wait()
    # What the server says now arrives when it is old.
    slow.answer()
    visitor.send_message("Hello")
    expect(visitor.page.locator(".item")).to_have_count(4)
    slow.deliver()
    visitor.page.wait_for_timeout(300)
    expect(visitor.page.locator(".item")).to_have_count(4)


def test_more_than_a_page_of_others_leaves_no_gap(visitor: Visitor, demo: ChatProcess) -> None:
    visitor.send_message("task")
    client = demo.client(visitor.user)
    for number in range(21):
        client.post_message(visitor.thread, f"task {number}")
    visitor.page.evaluate(LOOK)
    expect(visitor.page.locator(".user_message").last).to_contain_text("task 20")
    visitor.page.get_by_role("button", name="Older messages", exact=True).click()
    expect(visitor.page.locator(".item")).to_have_count(44)
    expect(visitor.page.locator(".user_message p").first).to_have_text("task")


def test_a_stream_that_has_nothing_is_asked_for_again_after_a_pause(visitor: Visitor) -> None:
    visitor.send_message("task")
    asked = []

    def nothing(route: Route) -> None:
        asked.append(route)
        route.fulfill(status=200, content_type="text/event-stream", body="")

    visitor.page.route("**/live", nothing)
    visitor.page.evaluate(LOOK)
    visitor.page.wait_for_timeout(1500)
    # Once whether a turn is running, and twice to follow it.
    assert 2 <= len(asked) <= 3


def test_a_stop_that_does_not_reach_the_server_frees_the_page_alone(visitor: Visitor, demo: ChatProcess) -> None:
    visitor.expected = ["net::ERR_FAILED"]
    begin_slow_answer(visitor)
    visitor.page.route("**/api/threads/*/stop", lambda route: route.abort())
    visitor.page.get_by_role("button", name="Stop").click()
    expect(visitor.page.locator("#ended")).to_contain_text("The server could not be asked to stop")
    expect(visitor.page.locator("#send")).to_be_visible()
    assert states(visitor, demo) == ["running"]
    visitor.page.reload()
    expect(visitor.page.locator("#stop")).to_be_visible()
    becomes_whole(visitor, demo)


def test_an_answer_is_followed_across_a_process_that_drains(visitor: Visitor, demo: ChatProcess) -> None:
    visitor.expected = ["503", "net::ERR_FAILED"]
    begin_slow_answer(visitor)
    asked: list[Route] = []

    def refuse(route: Route) -> None:
        asked.append(route)
        match len(asked):
            case 2:
                busy = {"code": "draining", "message": "Please try again.", "request_id": "r"}
                route.fulfill(status=503, headers={"Retry-After": "1"}, json=busy)
            case 3:
                route.abort()
            case 4:
                # A stream that ends before the turn.
                route.fulfill(body=": heartbeat\n\n", content_type="text/event-stream")
            case _:
                route.continue_()

    visitor.page.route(LIVE, refuse)
    visitor.page.reload()
    expect(visitor.page.locator("#stop")).to_be_visible()
    becomes_whole(visitor, demo)
    assert len(asked) > 4
