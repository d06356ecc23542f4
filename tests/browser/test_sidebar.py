"""The list of conversations."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor
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
    expect(visitor.page.locator("#no-threads")).to_have_text("No title has “nowhere” in it.")


def test_a_conversation_is_renamed_and_deleted_after_a_question(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("task")
    thread = visitor.thread
    page.get_by_role("link", name="task").hover()
    page.get_by_role("button", name="Rename task").click()
    page.get_by_label("Title", exact=True).fill("What I looked up")
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="What I looked up")
    expect(link).to_be_focused()
    expect(page.locator("h1")).to_have_text("What I looked up")
    page.reload()
    expect(link).to_be_visible()
    # Esc leaves the title as it is.
    page.get_by_role("button", name="Rename What I looked up").click()
    page.get_by_label("Title", exact=True).fill("No")
    page.keyboard.press("Escape")
    expect(link).to_be_visible()
    # And the conversation.
    delete = page.get_by_role("button", name="Delete What I looked up")
    delete.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("“What I looked up” goes for good, with its files.")
    page.keyboard.press("Escape")
    expect(link).to_be_visible()
    delete.click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#no-threads")).to_be_visible()
    expect(page.locator(".item")).to_have_count(0)
    assert visitor.thread == ""
    visitor.expected = ["404"]
    page.goto("about:blank")
    visitor.open_page(thread)
    expect(page.locator("#notices")).to_contain_text("There is no such conversation here.")
