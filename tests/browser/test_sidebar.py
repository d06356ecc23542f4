"""The list of conversations."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.browser.conftest import OpenPage, Visitor
from tests.conftest import execute
from tests.support.processes import ChatClient, ChatProcess


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def filled(client: ChatClient, count: int) -> None:
    for number in range(1, count + 1):
        client.create(f"task {number}")


def test_conversations_are_listed_newest_first_in_pages(visitor: Visitor, demo: ChatProcess) -> None:
    filled(demo.client(visitor.user), 33)
    visitor.page.reload()
    links = visitor.page.locator("#threads a")
    expect(links).to_have_count(30)
    expect(links.first).to_have_text("task 33")
    visitor.page.get_by_role("button", name="Older conversations").click()
    expect(links).to_have_count(33)
    expect(links.last).to_have_text("task 1")
    expect(visitor.page.get_by_role("button", name="Older conversations")).to_be_hidden()
    # The filter finds what is not on the first page, too.
    visitor.page.reload()
    expect(links).to_have_count(30)
    visitor.page.get_by_label("Search conversations").fill("TASK 2")
    expect(links).to_have_text(
        [
            "task 29",
            "task 28",
            "task 27",
            "task 26",
            "task 25",
            "task 24",
            "task 23",
            "task 22",
            "task 21",
            "task 20",
            "task 2",
        ]
    )
    visitor.page.get_by_label("Search conversations").fill("nowhere")
    expect(visitor.page.get_by_text("No message has these words.")).to_be_visible()
    expect(visitor.page.locator("#no-threads")).to_be_hidden()


def test_a_conversation_is_renamed_and_deleted_after_a_question(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("task")
    thread = visitor.thread
    visitor.rename("task", "What I looked up")
    link = page.get_by_role("link", name="What I looked up")
    expect(page.get_by_role("button", name="Options of What I looked up")).to_be_focused()
    expect(page.locator("h1")).to_have_text("What I looked up")
    page.reload()
    expect(link).to_be_visible()
    # Esc leaves the title as it is.
    visitor.choose("What I looked up", "Rename")
    expect(page.get_by_role("textbox", name="Title")).to_have_value("What I looked up")
    page.get_by_role("textbox", name="Title").fill("No")
    page.keyboard.press("Escape")
    expect(link).to_be_visible()
    # And the conversation.
    visitor.choose("What I looked up", "Delete")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("“What I looked up” goes for good, with its files.")
    page.keyboard.press("Escape")
    expect(link).to_be_visible()
    # The header has the same menu.
    page.get_by_role("button", name="Options of this conversation").click()
    page.get_by_role("menuitem", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#no-threads")).to_be_visible()
    expect(page.locator(".item")).to_have_count(0)
    assert visitor.thread == ""
    visitor.expected = ["404"]
    page.goto("about:blank")
    visitor.open_page(thread)
    expect(page.locator("#notices")).to_contain_text("There is no such conversation here.")


def test_conversations_are_listed_by_day(visitor: Visitor, demo: ChatProcess) -> None:
    filled(demo.client(visitor.user), 5)
    database = EmbeddedPostgres(demo.directory / ".data" / "postgres").running_url()
    assert database is not None
    for number, days in ((1, 800), (2, 100), (3, 5), (4, 1)):
        execute(
            database,
            f"UPDATE chat_sessions SET created_at = created_at - interval '{days} days'"
            f" WHERE user_id = '{visitor.user}' AND title = 'task {number}'",
        )
    visitor.page.reload()
    headings = visitor.page.locator("#threads h2")
    expect(headings).to_have_count(5)
    names = headings.all_inner_texts()
    assert names[:3] == ["Today", "Yesterday", "Previous 7 days"]
    assert re.fullmatch(r"\w+( \d{4})?", names[3])
    assert re.fullmatch(r"\w+ \d{4}", names[4])
    expect(visitor.page.locator("#threads a")).to_have_text([f"task {number}" for number in (5, 4, 3, 2, 1)])
    # A deleted one takes its day with it.
    visitor.choose("task 3", "Delete")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(headings).to_have_text([names[0], names[1], names[3], names[4]])


def test_days_are_those_of_the_calendar(visitor: Visitor) -> None:
    cases = [
        (["2026-03-29T23:59", "2026-03-30T00:01"], "Yesterday"),
        (["2026-03-30T00:00", "2026-03-30T23:59"], "Today"),
        (["2026-03-24T00:00", "2026-03-31T23:59"], "Previous 7 days"),
        (["2026-03-23T23:59", "2026-03-31T00:00"], "March"),
        (["2025-12-20T12:00", "2026-01-02T12:00"], "December 2025"),
        (["2026-04-02T12:00", "2026-04-01T12:00"], "Today"),
    ]
    named = visitor.page.evaluate(
        """async (cases) => {
          const { groupOf } = await import("/playground/days.js");
          return cases.map(([[time, now]]) => groupOf(new Date(time), new Date(now)));
        }""",
        cases,
    )
    assert named == [name for _, name in cases]


def test_a_conversation_is_exported_and_linked_to(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for text in ("Hello: you?", "card"):
        visitor.send_message(text)
    with page.expect_download() as saved:
        visitor.choose("Hello: you?", "Export")
    assert saved.value.suggested_filename == "Hello you.md"
    saved.value.save_as(tmp_path / "saved.md")
    text = (tmp_path / "saved.md").read_text()
    assert text.startswith("# Hello: you?\n\n**You**\n\nHello: you?\n\n**Assistant**\n\nYou said: **Hello: you?**")
    assert text.endswith("**You**\n\ncard\n\n**Assistant**\n\nOrder 4711 is on its way.\n")
    visitor.choose("Hello: you?", "Copy link")
    assert page.evaluate("navigator.clipboard.readText()") == f"{visitor.base_url}/#{visitor.thread}"


def test_another_page_of_the_user_shows_what_was_begun_renamed_and_deleted(visitor: Visitor) -> None:
    other = visitor.context.new_page()
    other.goto(f"{visitor.base_url}/")
    expect(other.locator("#no-threads")).to_be_visible()
    visitor.page.get_by_label("Message", exact=True).fill("slow")
    visitor.page.keyboard.press("Enter")
    row = other.locator("#threads li")
    expect(row).to_contain_text("slow")
    expect(row.locator(".running")).to_have_text("answering")
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator("#ended")).to_contain_text("Stopped.")
    expect(row.locator(".running")).to_have_count(0)
    visitor.rename("slow", "Not so fast")
    expect(row).to_contain_text("Not so fast")
    visitor.choose("Not so fast", "Delete")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(other.locator("#no-threads")).to_be_visible()


def test_the_list_can_be_hidden_and_stays_so(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("button", name="Hide the list").click()
    expect(page.get_by_role("navigation", name="Conversations")).to_be_hidden()
    show = page.get_by_role("button", name="Conversations")
    expect(show).to_be_focused()
    page.reload()
    show.click()
    expect(page.get_by_role("navigation", name="Conversations")).to_be_visible()
    expect(page.get_by_role("button", name="Hide the list")).to_be_focused()


def test_back_closes_the_list_of_a_phone(open_page: OpenPage) -> None:
    visitor = open_page(viewport={"width": 390, "height": 780})
    page = visitor.page
    visitor.send_message("task")
    thread = visitor.thread
    for close in (page.go_back, lambda: page.keyboard.press("Escape"), lambda: page.mouse.click(380, 400)):
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("navigation", name="Conversations")).to_be_visible()
        close()
        expect(page.get_by_role("navigation", name="Conversations")).to_be_hidden()
        assert visitor.thread == thread
    # A conversation that was chosen in the list is left by one press.
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation", exact=True).click()
    expect(page.locator("#welcome")).to_be_visible()
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("link", name="task").click()
    expect(page.locator(".item")).to_have_count(2)
    page.go_back()
    expect(page.locator("#welcome")).to_be_visible()
    page.go_back()
    expect(page.locator(".item")).to_have_count(2)
