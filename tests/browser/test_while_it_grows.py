"""What is being read, selected or pressed stays as it is while an answer grows around it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import OpenPage, Visitor, page_opener, wait_until
from tests.support.processes import ChatProcess, eventually

# A view of its own, drawn twice; `look` says what is there before and after.
TWICE = """async ([first, second]) => {
  const { MarkdownView } = await import("/playground/markdown.js");
  const view = new MarkdownView(), element = view.element;
  document.getElementById("items").append(element);
  await view.show(first);
  const kept = (() => { PREPARE })();
  await view.show(second);
  LOOK
}"""
ARABIC = "كيف يمكنني استخدام FastAPI مع PostgreSQL؟"


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


@pytest.fixture(scope="module")
def page(chromium: Browser, demo: ChatProcess) -> Iterator[Page]:
    """One for all tests that only call a function of the page."""
    for begin in page_opener(chromium, demo):
        yield begin().page


def twice(page: Page, first: str, second: str, prepare: str, look: str) -> Any:
    return page.evaluate(TWICE.replace("PREPARE", prepare).replace("LOOK", look), [first, second])


def test_what_is_selected_stays_selected(page: Page) -> None:
    selected = twice(
        page,
        "First.\n\nThe last block",
        "First.\n\nThe last block grows *and* grows",
        """const words = element.querySelector('.block:last-child p').firstChild;
        getSelection().setBaseAndExtent(words, 4, words, 14);
        return String(getSelection());""",
        "return [kept, String(getSelection()), element.innerText];",
    )
    assert selected == ["last block", "last block", "First.\n\nThe last block grows and grows"]


def test_code_keeps_its_button_and_its_place(page: Page) -> None:
    line = "x = '" + "long " * 60 + "'\n"
    kept = twice(
        page,
        f"```python\n{line}",
        f"```python\n{line}y = 2\n```\n\nAfter it.",
        """const pre = element.querySelector('pre'), button = element.querySelector('button');
        pre.scrollLeft = 90;
        return [pre, button];""",
        """const [pre, button] = kept;
        const says = (element, text) => element.innerText.includes(text);
        const isKept = pre.isConnected && button.isConnected;
        return [isKept, pre.scrollLeft, says(pre, 'y = 2'), says(element, 'After it.')];""",
    )
    assert kept == [True, 90, True, True]


def test_what_becomes_something_else_is_drawn_anew(page: Page) -> None:
    html = twice(
        page,
        "**Not yet\n\n- one",
        "**Not yet**\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "return null;",
        "return element.innerHTML;",
    )
    assert "<strong>Not yet</strong>" in html
    assert "<td>2</td>" in html
    assert "<li" not in html
    assert "**" not in html


def test_a_button_copies_code_that_is_still_being_written(page: Page) -> None:
    copied = page.evaluate(
        """async () => {
          const { MarkdownView } = await import("/playground/markdown.js");
          const view = new MarkdownView();
          document.getElementById("items").append(view.element);
          await view.show("```python\\nx = 1");
          const button = view.element.querySelector("button");
          button.dispatchEvent(new MouseEvent("mousedown", { bubbles: true }));
          await view.show("```python\\nx = 1\\ny = 2");
          button.click();
          await new Promise((resolve) => setTimeout(resolve, 200));
          return navigator.clipboard.readText();
        }"""
    )
    assert copied.strip() == "x = 1\ny = 2"


def test_a_picture_never_gives_way_while_it_is_made(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate(
        """() => {
          window.heights = [];
          const look = () => {
            const picture = document.querySelector(".generated_image img");
            if (picture?.naturalWidth) window.heights.push(picture.getBoundingClientRect().height);
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    visitor.send_message("draw")
    expect(page.locator(".generated_image progress")).to_have_count(0)
    eventually(lambda: page.locator(".generated_image img").evaluate("image => image.naturalWidth") > 0)
    heights = page.evaluate("window.heights")
    assert len(heights) > 3
    assert min(heights) > 100


def test_nothing_is_asked_of_the_server_for_an_empty_text(visitor: Visitor) -> None:
    visitor.send_message("Hello")
    texts = [
        json.loads(request.post_data or "{}")["text"]
        for request in visitor.requests
        if request.url.endswith("/playground/markdown")
    ]
    assert texts
    assert "" not in texts


def test_it_is_seen_that_an_answer_comes_until_its_first_word_is_there(visitor: Visitor) -> None:
    page = visitor.page
    held: list[Any] = []
    page.route("**/playground/markdown", lambda route: held.append(route))  # noqa: PLW0108 - as the driver wants it
    page.get_by_label("Message", exact=True).fill("slow")
    page.keyboard.press("Enter")
    wait_until(page, lambda: bool(held))
    expect(page.locator(".typing")).to_be_visible()
    for route in held:
        route.continue_()
    page.unroute("**/playground/markdown")
    expect(visitor.answer).to_contain_text("This is")
    expect(page.locator(".typing")).to_be_hidden()


def in_sight(page: Page, element: Locator) -> bool:
    box = element.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= page.evaluate("innerHeight")


def test_what_the_page_has_to_say_is_seen_wherever_somebody_reads(visitor: Visitor) -> None:
    page = visitor.page
    visitor.expected = ["415"]
    visitor.send_message("long")
    visitor.scroll_to(500)
    page.locator("#files").set_input_files({"name": "a.zip", "mimeType": "application/zip", "buffer": b"PK"})
    refused = page.get_by_role("alert").filter(has_text="a.zip")
    expect(refused).to_be_visible()
    assert in_sight(page, refused)
    assert page.locator("#log").evaluate("log => log.scrollTop") == 500
    refused.get_by_role("button", name="Dismiss").click()
    # And what is no longer true goes by itself.
    field = page.get_by_label("Message", exact=True)
    field.fill("slow")
    page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    visitor.scroll_to(500)
    field.fill("too early")
    page.keyboard.press("Enter")
    wait = page.locator(".notice").filter(has_text="Wait until the answer is finished")
    expect(wait).to_be_visible()
    assert in_sight(page, wait)
    page.keyboard.press("Escape")
    expect(wait).to_have_count(0)


def test_each_text_has_its_own_direction(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message(ARABIC)
    direction = "element => getComputedStyle(element).direction"
    for selector in (".user_message .bubble", "#title", "#threads a"):
        assert page.locator(selector).evaluate(direction) == "rtl", selector
    assert page.locator(".assistant_message .block").first.evaluate(direction) == "ltr"
    assert twice(page, ARABIC, f"{ARABIC}\n\n- {ARABIC}\n\nEnglish.", "return null;", f"""
      return [...element.querySelectorAll("p, li")].map({direction});
    """) == ["rtl", "rtl", "ltr"]  # fmt: skip
    page.get_by_label("Message", exact=True).fill(ARABIC)
    assert page.get_by_label("Message", exact=True).evaluate(direction) == "rtl"


def test_a_long_message_is_folded_and_whole_on_paper(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("\n".join(f"line {number}" for number in range(60)))
    bubble = page.locator(".bubble")
    folded = bubble.evaluate("element => element.clientHeight")
    top = bubble.evaluate("element => element.getBoundingClientRect().top")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_timeout(200)
    assert bubble.evaluate("element => element.getBoundingClientRect().top") == top
    assert bubble.evaluate("element => element.clientHeight") > 3 * folded
    page.get_by_role("button", name="Show less").click()
    assert bubble.evaluate("element => element.clientHeight") == folded
    page.get_by_role("button", name="Copy your message").click()
    assert page.evaluate("navigator.clipboard.readText()").endswith("line 58\nline 59")
    # On paper there is the conversation and nothing else.
    page.emulate_media(media="print")
    assert bubble.evaluate("bubble => bubble.scrollHeight - bubble.clientHeight") <= 0
    for selector in ("#sidebar", "#composer", ".tools"):
        expect(page.locator(selector).first).to_be_hidden()
    assert page.locator("#log").evaluate("log => log.scrollHeight - log.clientHeight") <= 0


def test_what_was_sent_can_be_opened(visitor: Visitor) -> None:
    page = visitor.page
    page.locator("#files").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"Hello."})
    expect(page.locator(".chip:not(.uploading)")).to_have_count(1)
    visitor.send_message("Look")
    with page.expect_download() as download:
        page.get_by_role("button", name="a.txt").click()
    assert download.value.suggested_filename == "a.txt"
    assert download.value.path().read_text() == "Hello."


def test_the_enter_of_a_phone_is_a_new_line(open_page: OpenPage) -> None:
    visitor = open_page(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    field = visitor.page.get_by_label("Message", exact=True)
    # Nobody asked for the keyboard.
    expect(field).not_to_be_focused()
    field.fill("one")
    visitor.page.keyboard.press("Enter")
    visitor.page.keyboard.type("two")
    expect(field).to_have_value("one\ntwo")
    visitor.page.locator("#send").tap()
    visitor.wait_for_turn_end("one\ntwo")


@pytest.mark.parametrize("viewport", [(1200, 700), (390, 700)], ids=["desktop", "phone"])
def test_what_was_just_sent_and_its_answer_are_in_view(open_page: OpenPage, viewport: tuple[int, int]) -> None:
    """Wherever the list was scrolled to, and whatever was unfolded before."""
    visitor = open_page(viewport={"width": viewport[0], "height": viewport[1]})
    page = visitor.page
    visitor.send_message("workflow")
    page.locator(".workflow summary").click()
    visitor.send_message("markdown")
    page.locator("#log").hover()
    for before in ("unfolded", "scrolled up", "folded", "a growing field"):
        if before == "scrolled up":
            page.mouse.wheel(0, -2000)
            page.wait_for_timeout(100)
        elif before == "folded":
            page.locator(".workflow summary").click()
        text = "\n".join(["Hello"] * (6 if before == "a growing field" else 1))
        visitor.send_message(text)
        expect(page.locator(".user_message").last).to_be_in_viewport()
        expect(visitor.answer).to_contain_text("of yours.")
        expect(visitor.answer.get_by_role("button", name="Good answer")).to_be_in_viewport()
        assert page.locator("#to-end").is_hidden(), before
