"""What a page has room for: long titles, phones on their side, much that is written."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, Visitor, wait_until

SIDEWAYS = {"viewport": {"width": 667, "height": 320}, "has_touch": True, "is_mobile": True}
SMALL = {"viewport": {"width": 320, "height": 560}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def is_inside(page: Page, selector: str) -> bool:
    return bool(
        page.evaluate(
            """(selector) => {
              const { left, top, right, bottom } = document.querySelector(selector).getBoundingClientRect();
              return left >= 0 && top >= 0 && right <= innerWidth + 1 && bottom <= innerHeight + 1;
            }""",
            selector,
        )
    )


def test_a_long_title_is_cut_and_widens_nothing(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("Hello")
    visitor.rename("Hello", "a title that goes on and on " * 8)
    expect(page.locator("#title")).to_contain_text("a title that goes on")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert is_inside(page, "#send")


@pytest.mark.parametrize("phone", [SIDEWAYS, SMALL], ids=["on its side", "small"])
def test_a_phone_has_room_for_the_field_and_the_messages(open_page: OpenPage, phone: dict[str, object]) -> None:
    visitor = open_page(**phone)
    page = visitor.page
    visitor.send_message("markdown")
    visitor.answer.get_by_role("button", name="Quote").click()
    page.get_by_label("Message", exact=True).fill("\n".join(f"line {number}" for number in range(12)))
    assert is_inside(page, "#send")
    assert is_inside(page, "#composer")
    assert page.evaluate("document.getElementById('log').clientHeight") >= 60
    # The way to the newest message is over the messages, and not over what is being written.
    visitor.scroll_to(0)
    newest = page.get_by_role("button", name="To the newest message")
    expect(newest).to_be_visible()
    button, field = newest.bounding_box(), page.locator("#composer").bounding_box()
    assert button is not None
    assert field is not None
    assert button["y"] + button["height"] <= field["y"]
    assert is_inside(page, "#to-end")
    assert is_inside(page, "#send")


def test_titles_have_the_room_of_buttons_that_are_not_shown(visitor: Visitor) -> None:
    visitor.send_message("Hello there")
    row = visitor.page.locator("#threads li").first
    link = row.get_by_role("link")
    visitor.page.mouse.move(900, 400)
    room = "link => link.clientWidth - parseFloat(getComputedStyle(link).paddingRight)"
    wide = link.evaluate(room)
    row.hover()
    assert wide > link.evaluate(room) + 20


def test_users_are_gone_through_by_keyboard_and_chosen_by_enter(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_label("Message", exact=True).fill("slow")
    page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    users = page.get_by_label("User")
    users.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    expect(users).to_be_focused()
    # Nobody was switched to yet, and the answer goes on.
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    assert visitor.thread
    page.keyboard.press("Enter")
    expect(page.locator("#welcome")).to_be_visible()
    expect(users).not_to_have_value(visitor.user)
    assert visitor.thread == ""
    # Once: one step back is where it was.
    entries = page.evaluate("history.length")
    users.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(users).to_have_value("bob")
    # Not wait_for_function: it evaluates a string again in the page, which the page's policy forbids.
    wait_until(page, lambda: page.evaluate("sessionStorage.getItem('user')") == "bob")
    assert page.evaluate("history.length") == entries + 1
