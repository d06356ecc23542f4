"""What happens while something else is under way: nothing of one conversation is ever shown in another."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.browser.conftest import SLOW, HeldRequests, OpenPage, Visitor, operation, page_opener, wait_until
from tests.conftest import execute
from tests.support.nextjs import Wire
from tests.support.processes import ChatProcess, eventually


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def test_what_comes_late_is_not_drawn_into_another_conversation(visitor: Visitor) -> None:
    page = visitor.page
    for title in ("buttons", "task"):
        page.get_by_role("button", name="New conversation", exact=True).click()
        visitor.send_message(title)
    # A conversation.
    held = HeldRequests(visitor, "items.list")
    page.get_by_role("link", name="buttons").click()
    held.wait()
    # Nothing can be sent into what is not there yet.
    page.get_by_label("Message", exact=True).fill("too early")
    expect(page.locator("#send")).to_be_disabled()
    page.get_by_role("button", name="New conversation", exact=True).click()
    held.release()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator(".item")).to_have_count(0)
    # What a button does.
    page.get_by_role("link", name="buttons").click()
    held = HeldRequests(visitor, "threads.sync_custom_action")
    page.get_by_role("button", name="Press me").click()
    held.wait()
    page.get_by_role("link", name="task").click()
    expect(page.locator(".item")).to_have_count(2)
    held.release()
    expect(page.locator(".item")).to_have_count(2)
    expect(page.locator(".item.widget")).to_have_count(0)


def test_nothing_of_one_user_comes_late_to_another(visitor: Visitor) -> None:
    visitor.send_message("A secret")
    held = HeldRequests(visitor, "items.list")
    visitor.page.reload()
    held.wait()
    visitor.page.get_by_label("User").select_option("bob")
    held.release()
    expect(visitor.page.locator(".item")).to_have_count(0)
    assert "A secret" not in visitor.page.content()


def test_a_user_who_is_chosen_while_another_one_is_read_is_not_forgotten(visitor: Visitor) -> None:
    visitor.send_message("task")
    held = HeldRequests(visitor, "threads.list")
    visitor.page.get_by_label("User").select_option("bob")
    held.wait()
    visitor.page.get_by_label("User").select_option(visitor.user)
    held.release()
    expect(visitor.page.get_by_role("link", name="task", exact=True)).to_be_visible()
    expect(visitor.page.get_by_label("User")).to_have_value(visitor.user)


def test_nothing_but_stop_ends_an_answer(visitor: Visitor) -> None:
    page = visitor.page
    field = page.get_by_label("Message", exact=True)
    field.fill("slow")
    field.press("Enter")
    expect(visitor.answer).to_contain_text("This is a slow answer")
    # Not the link of what is open.
    page.get_by_role("link", name="slow").click()
    page.wait_for_timeout(300)
    expect(page.locator("#stop")).to_be_visible()
    words = len(visitor.answer.inner_text())
    eventually(lambda: len(visitor.answer.inner_text()) > words)
    # Not Esc in the filter.
    page.get_by_label("Search conversations").fill("slow")
    page.keyboard.press("Escape")
    expect(page.locator("#stop")).to_be_visible()
    # Not another message, which has to wait.
    field.fill("And another thing")
    field.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Wait until the answer is finished")).to_be_visible()
    expect(field).to_have_value("And another thing")
    page.get_by_role("button", name="Stop").click()
    visitor.wait_for_turn_end()


def test_a_message_that_is_stopped_before_its_first_event_is_in_its_field_again(visitor: Visitor) -> None:
    visitor.send_message("task")
    held = HeldRequests(visitor, "threads.add_user_message")
    field = visitor.page.get_by_label("Message", exact=True)
    field.fill("Second thoughts")
    visitor.page.keyboard.press("Enter")
    held.wait()
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator("#ended")).to_have_text("Stopped.")
    expect(field).to_have_value("Second thoughts")
    visitor.page.unroute("**/api/chatkit")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("You said: Second thoughts")
    expect(visitor.page.locator(".bubble")).to_have_text(["task", "Second thoughts"])


def test_a_retry_that_fails_shows_the_old_answer_and_can_be_made_again(visitor: Visitor) -> None:
    visitor.expected = ["503"]
    visitor.send_message("Hello")
    old = visitor.answer.get_attribute("data-id")
    away = json.dumps({"code": "unavailable", "message": "Busy. Please try again.", "request_id": "r"})
    visitor.page.route(
        "**/api/chatkit",
        lambda route: (
            route.fulfill(status=503, body=away)
            if operation(route) == "threads.retry_after_item"
            else route.continue_()
        ),
    )
    visitor.answer.get_by_role("button", name="Try again").click()
    expect(visitor.page.locator("#ended")).to_contain_text("Busy. Please try again.")
    expect(visitor.page.locator(f'[data-id="{old}"]')).to_have_count(1)
    visitor.page.unroute("**/api/chatkit")
    visitor.page.locator("#ended button").click()
    expect(visitor.page.locator(f'[data-id="{old}"]')).to_have_count(0)
    visitor.wait_for_turn_end()
    expect(visitor.page.locator(".assistant_message")).to_have_count(1)


def test_the_keyboard_is_where_it_is_needed_after_a_click(visitor: Visitor) -> None:
    visitor.page.get_by_label("Message", exact=True).fill("slow")
    visitor.page.locator("#send").click()
    expect(visitor.page.locator("#stop")).to_be_focused()
    visitor.page.locator("#stop").click()
    expect(visitor.page.get_by_label("Message", exact=True)).to_be_focused()


def test_a_title_given_while_an_answer_runs_stays(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_label("Message", exact=True).fill("slow")
    page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    visitor.rename("slow", "Mine")
    expect(page.locator("h1")).to_have_text("Mine")
    page.locator("#stop").click()
    expect(page.locator("#ended")).to_contain_text("Stopped.")
    expect(page.get_by_role("link", name="Mine")).to_be_visible()
    expect(page.locator("h1")).to_have_text("Mine")
    page.reload()
    expect(page.get_by_role("link", name="Mine")).to_be_visible()


def test_a_phone_that_is_turned_with_its_list_open_goes_on(open_page: OpenPage) -> None:
    visitor = open_page(viewport={"width": 390, "height": 780})
    visitor.page.get_by_role("button", name="Conversations").click()
    visitor.page.set_viewport_size({"width": 900, "height": 390})
    visitor.page.get_by_label("Message", exact=True).fill("task")
    visitor.page.keyboard.press("Enter")
    visitor.wait_for_turn_end("task")
    visitor.page.set_viewport_size({"width": 390, "height": 780})
    visitor.page.get_by_role("button", name="Conversations").click()
    visitor.page.get_by_role("button", name="Hide the list").click()
    expect(visitor.page.get_by_role("button", name="Conversations")).to_be_focused()


def test_text_that_is_pasted_with_its_picture_is_text(visitor: Visitor) -> None:
    visitor.page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["x"], "cells.png", { type: "image/png" }));
          transfer.setData("text/plain", "1\\t2");
          const given = { clipboardData: transfer, bubbles: true, cancelable: true };
          window.wasLeft = document.getElementById("text").dispatchEvent(new ClipboardEvent("paste", given));
        }"""
    )
    assert visitor.page.evaluate("window.wasLeft")
    expect(visitor.page.locator(".chip")).to_have_count(0)


@pytest.mark.parametrize(("status", "reason"), [("locked", None), ("closed", "It is solved.")])
def test_a_conversation_that_takes_nothing_says_why(
    visitor: Visitor, demo: ChatProcess, status: str, reason: str | None
) -> None:
    visitor.send_message("task")
    database = EmbeddedPostgres(demo.directory / ".data" / "postgres").running_url()
    assert database is not None
    stored = json.dumps({"type": status, "reason": reason})
    execute(database, f"UPDATE chat_sessions SET status = '{stored}' WHERE thread_id = '{visitor.thread}'")
    visitor.page.reload()
    expect(visitor.page.locator("#closed")).to_have_text(reason or "This conversation is locked.")
    expect(visitor.page.locator("#composer")).to_be_hidden()
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(visitor.page.locator("#composer")).to_be_visible()


class TestCuts:
    def test_what_was_stored_before_a_connection_was_lost_stands_there_once(self, behind: Visitor, wire: Wire) -> None:
        page = behind.page
        behind.expected = ["net::ERR"]
        asked: list[Route] = []

        def once(route: Route) -> None:
            if operation(route) != "threads.create":
                route.continue_()
                return
            asked.append(route)
            if len(asked) == 1:
                route.continue_()
            else:
                route.abort("connectionfailed")

        page.route("**/api/chatkit", once)
        wire.cut_once_at(b"have")
        page.get_by_label("Message", exact=True).fill("slow")
        page.keyboard.press("Enter")
        again = page.locator("#ended button")
        expect(page.locator("#ended")).to_contain_text("The connection was lost.")
        # Not even when it fails once more.
        again.click()
        wait_until(page, lambda: len(asked) == 6)
        expect(again).to_be_visible()
        expect(page.locator(".user_message")).to_have_count(1)
        expect(page.get_by_label("Message", exact=True)).to_have_value("")
        page.unroute("**/api/chatkit")
        again.click()
        expect(behind.answer.locator(".markdown")).to_have_text(SLOW)
        expect(page.locator("#ended")).to_be_hidden()
        expect(page.locator(".user_message")).to_have_count(1)
        page.reload()
        expect(page.locator(".item")).to_have_count(2)

    @pytest.fixture
    def wire(self, demo: ChatProcess) -> Iterator[Wire]:
        made = Wire(demo.port)
        yield made
        made.close()

    @pytest.fixture
    def behind(self, chromium: Browser, demo: ChatProcess, wire: Wire) -> Iterator[Visitor]:
        for begin in page_opener(chromium, demo, f"http://127.0.0.1:{wire.port}"):
            visitor = begin()
            visitor.expected = ["net::ERR"]
            yield visitor

    def test_an_answer_goes_on_after_a_connection_that_was_cut(self, behind: Visitor, wire: Wire) -> None:
        wire.cut_once_at(b"have")
        behind.page.get_by_label("Message", exact=True).fill("slow")
        behind.page.keyboard.press("Enter")
        eventually(lambda: wire.cuts == 1)
        expect(behind.answer).to_contain_text("This is a slow answer: stop it, and what you have read of it stays.")
        expect(behind.page.locator("#stop")).to_be_visible()
        expect(behind.answer.locator(".markdown")).to_have_text(SLOW)
        expect(behind.page.locator("#ended")).to_be_hidden()
        expect(behind.page.locator(".bubble")).to_have_count(1)
        behind.page.reload()
        expect(behind.page.locator(".item")).to_have_count(2)
