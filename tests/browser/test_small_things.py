"""What a person stumbles over when nobody has thought of it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.browser.conftest import OpenPage, Visitor, page_opener
from tests.conftest import execute
from tests.support.processes import ChatProcess


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def test_enter_in_a_dialog_types_nothing_elsewhere(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_label("User").focus()
    page.get_by_label("User").select_option("Somebody else …")
    page.get_by_label("Name").fill(f"{visitor.user}-eve")
    page.keyboard.press("Enter")
    expect(page.get_by_label("User")).to_have_value(f"{visitor.user}-eve")
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_a_new_conversation_is_seen_from_its_beginning(visitor: Visitor) -> None:
    visitor.send_message("long")
    visitor.page.get_by_role("button", name="New conversation").click()
    expect(visitor.page.get_by_role("heading", name="What would you like to try?")).to_be_in_viewport()


def test_an_error_is_seen_where_nothing_has_been_said_yet(visitor: Visitor) -> None:
    visitor.expected += ["Failed to load resource"]
    visitor.page.set_viewport_size({"width": 1000, "height": 500})
    visitor.page.route("**/api/chatkit", lambda route: route.abort())
    visitor.page.get_by_label("Message", exact=True).fill("Hello")
    visitor.page.keyboard.press("Enter")
    expect(visitor.page.locator("#ended")).to_contain_text("The connection was lost.")
    expect(visitor.page.locator("#ended")).to_be_in_viewport()


@pytest.mark.parametrize("keyword", ["form", "What time is it?"])
def test_the_keyboard_is_in_the_message_field_after_a_proposed_prompt(visitor: Visitor, keyword: str) -> None:
    visitor.page.locator("#prompts button").filter(has_text=keyword).first.press("Enter")
    visitor.wait_for_turn_end(keyword)
    expect(visitor.page.get_by_label("Message", exact=True)).to_be_focused()


def test_the_keyboard_stays_in_the_list_while_titles_come(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("Hello")
    old = page.locator(f'#threads a[data-thread="{visitor.thread}"]')
    page.get_by_role("button", name="New conversation").click()
    field = page.get_by_label("Message", exact=True)
    field.fill("long")
    field.press("Enter")
    expect(visitor.answer).to_be_visible()
    old.focus()
    before = old.element_handle()
    visitor.wait_for_turn_end()
    expect(page.locator("#threads li").first).to_contain_text("long")
    expect(old).to_be_focused()
    assert page.evaluate("([a, b]) => a === b", [before, old.element_handle()])


def test_each_page_keeps_its_own_user(visitor: Visitor) -> None:
    other = visitor.context.new_page()
    other.goto(f"{visitor.base_url}/")
    expect(other.get_by_label("User")).to_have_value(visitor.user)
    other.get_by_label("User").select_option("bob")
    for page, name in ((other, "bob"), (visitor.page, visitor.user)):
        page.reload()
        expect(page.get_by_label("User")).to_have_value(name)


def test_a_message_without_an_answer_can_be_tried_again_later(visitor: Visitor, demo: ChatProcess) -> None:
    visitor.send_message("Hello")
    database = EmbeddedPostgres(demo.directory / ".data" / "postgres").running_url()
    assert database is not None
    execute(database, f"DELETE FROM chat_messages WHERE user_id = '{visitor.user}' AND item_type = 'assistant_message'")
    visitor.page.reload()
    expect(visitor.page.locator("#ended")).to_contain_text("There is no answer to this.")
    visitor.page.locator("#ended button").click()
    visitor.wait_for_turn_end()
    expect(visitor.page.locator(".assistant_message")).to_have_count(1)
    visitor.page.reload()
    expect(visitor.page.locator(".assistant_message")).to_have_count(1)
    expect(visitor.page.locator("#ended")).to_be_hidden()


def test_a_server_that_is_away_is_told_in_our_words_and_once(visitor: Visitor) -> None:
    visitor.expected += ["Failed to load resource"]
    visitor.send_message("Hello")
    visitor.page.route("**/api/chatkit", lambda route: route.abort())
    for _ in range(2):
        visitor.answer.get_by_role("button", name="Good answer").click()
        expect(visitor.page.locator(".notice")).to_have_text("The server cannot be reached. Please try again.")
    expect(visitor.page.locator(".notice")).to_have_count(1)


@pytest.fixture(scope="module")
def page(chromium: Browser, demo: ChatProcess) -> Iterator[Page]:
    """One for all tests that only call a function of the page."""
    for begin in page_opener(chromium, demo):
        yield begin().page


DRAWN = """async ([text, at]) => {
  const { MarkdownView } = await import("/playground/markdown.js");
  const mark = (number) => Object.assign(document.createElement("sup"), { textContent: `[${number}]` });
  const view = new MarkdownView(mark);
  await view.show(text, [{ index: at }]);
  return view.element.innerHTML;
}"""


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("See https://example.com/a", " for it.", 'href="https://example.com/a"'),
        ("**Note.**", " And more.", "<strong>Note.</strong> <sup>[0]</sup>"),
        ("```\nx = 1\n```", "\n\nAfter **it**.", "<strong>it</strong>"),
        ("|a|b|\n|-|-|\n|1|2|", "\n\nAfter.", "2<sup>[0]</sup>"),
        ("|a|b|\n|-|-|\n|1|2|", "\n|3|4|", "<td>4</td>"),
        ("A word", " more.", "A word<sup>[0]</sup> more."),
    ],
    ids=["address", "emphasis", "fence", "last row", "row", "word"],
)
def test_a_citation_breaks_no_markdown(page: Page, before: str, after: str, shown: str) -> None:
    html = page.evaluate(DRAWN, [before + after, len(before)])
    assert shown in html
    assert html.count("<sup>[0]</sup>") == 1
    assert "\ue000" not in html
