"""Searching in the playground: what is found, and that it opens at the message."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor
from tests.support.processes import ChatProcess, thread_id_of


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def talked(visitor: Visitor, demo: ChatProcess) -> tuple[str, str]:
    """A long conversation, with a pearl at its beginning; and a short one."""
    client = demo.client(visitor.user)
    long = thread_id_of(client.create("task with a <b>pearl</b> & more"))
    for number in range(24):
        client.post_message(long, f"task {number}")
    short = thread_id_of(client.create("task about diamonds"))
    visitor.page.reload()
    return long, short


def test_a_found_message_is_opened_where_it_is(visitor: Visitor, demo: ChatProcess, pictures: Path) -> None:
    page = visitor.page
    long, short = talked(visitor, demo)
    page.locator("#threads a").first.click()
    expect(page.locator(".user_message")).to_have_count(1)
    page.get_by_label("Search conversations").fill("PEARL task")
    hits = page.locator("#hits a")
    expect(hits).to_have_count(1)
    expect(hits.locator("mark")).to_have_text(["task", "pearl"])
    expect(hits.locator(".snippet")).to_have_text("task with a <b>pearl</b> & more")
    page.screenshot(path=pictures / "search.png")
    hits.click()
    found = page.locator(".item.pointed")
    expect(found).to_contain_text("pearl")
    expect(found).to_be_in_viewport()
    assert page.evaluate("location.hash").startswith(f"#{long}/msg_")
    # The same again, and a reload, lead there, too; Back leads to the conversation before.
    page.locator("#to-end").click()
    expect(found).not_to_be_in_viewport()
    hits.click()
    expect(found).to_be_in_viewport()
    page.reload()
    expect(page.locator(".item.pointed")).to_be_in_viewport()
    page.go_back()
    page.go_back()
    expect(page.locator("#title")).to_have_text("task about diamonds")
    assert page.evaluate("location.hash") == f"#{short}"


def test_what_is_nowhere_and_what_is_somebody_elses_is_not_found(
    visitor: Visitor, open_page: OpenPage, demo: ChatProcess
) -> None:
    talked(visitor, demo)
    stranger = open_page()
    for page in (visitor.page, stranger.page):
        page.get_by_label("Search conversations").fill("emerald" if page is visitor.page else "pearl")
        expect(page.get_by_text("No message has these words.")).to_be_visible()
        page.get_by_label("Search conversations").fill("")
        expect(page.locator("#found")).to_be_hidden()


def test_many_hits_come_in_pages_on_a_phone(open_page: OpenPage, demo: ChatProcess, pictures: Path) -> None:
    visitor = open_page(viewport={"width": 380, "height": 720}, has_touch=True)
    talked(visitor, demo)
    page = visitor.page
    page.get_by_role("button", name="Conversations").click()
    page.get_by_label("Search conversations").fill("task")
    hits = page.locator("#hits a")
    # And a title.
    expect(hits).to_have_count(19)
    # Each conversation's title is seen once, and read with each of its messages.
    expect(hits.locator("strong:not(.hidden)")).to_have_count(2)
    expect(hits.nth(7).locator("strong")).not_to_have_text("")
    page.screenshot(path=pictures / "search-phone.png")
    page.get_by_role("button", name="Older messages with these words").click()
    expect(hits.first).to_contain_text("diamonds")
    expect(hits).not_to_have_count(19)
    hits.first.click()
    expect(page.locator("#title")).to_have_text("task about diamonds")
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
