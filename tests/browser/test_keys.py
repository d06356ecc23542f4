"""The playground without a pointer."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor


def test_shortcuts_search_and_begin_anew(open_page: OpenPage) -> None:
    visitor: Visitor = open_page()
    visitor.send_message("A first word about otters")
    expect(visitor.answer).to_contain_text("otters")
    page = visitor.page
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.type("otters")
    hit = page.locator("#hits a").first
    expect(hit).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#threads a").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(hit).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.press("Control+Shift+o")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Control+k")
    page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("otters")
    visitor.check()


def test_the_last_message_comes_back_into_an_empty_field(open_page: OpenPage) -> None:
    visitor: Visitor = open_page()
    field = visitor.page.locator("#text")
    field.press("ArrowUp")
    expect(field).to_have_value("")
    visitor.send_message("Once more, please")
    expect(visitor.answer).to_contain_text("Once more")
    field.press("ArrowUp")
    expect(field).to_have_value("Once more, please")
    field.fill("Something else")
    field.press("ArrowUp")
    expect(field).to_have_value("Something else")
    visitor.check()


def test_a_link_that_was_copied_says_so_where_it_was_asked_for(open_page: OpenPage) -> None:
    visitor: Visitor = open_page()
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.send_message("Hello")
    expect(visitor.answer).to_contain_text("Hello")
    options = visitor.page.locator("#thread-menu")
    options.click()
    visitor.page.get_by_role("menuitem", name="Copy link").click()
    expect(options).to_have_attribute("data-done", "Link copied")
    expect(options).to_have_attribute("aria-label", "Options of this conversation", timeout=5000)
    assert re.search(r"#thr_\w+$", visitor.page.evaluate("() => navigator.clipboard.readText()"))


def test_what_hides_a_long_message_has_room_of_its_own(open_page: OpenPage) -> None:
    visitor: Visitor = open_page()
    visitor.send_message("A sentence of many. " * 120)
    fold = visitor.page.get_by_role("button", name="Show all")
    expect(fold).to_be_visible()
    expect(visitor.page.locator(".assistant_message .tools")).to_be_visible()
    answer = visitor.page.locator(".assistant_message").last.bounding_box()
    button = fold.bounding_box()
    assert answer is not None
    assert button is not None
    assert button["y"] + button["height"] <= answer["y"]
