"""For everybody: light and dark, wide and narrow, by keyboard alone, with a screen reader."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, Visitor
from tests.support.accessibility import violations
from tests.support.files import image_bytes

# As narrow as one; as high as it takes to have all of a page in sight.
PHONE = {"viewport": {"width": 390, "height": 2400}, "has_touch": True, "is_mobile": True}
SCENES = (
    "markdown",
    "card",
    "list",
    "form",
    "questions",
    "workflow",
    "citation",
    "entity",
    "draw",
    "tool",
    "notice",
    "error",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(open_page: OpenPage, scheme: str) -> None:
    # High enough to have all of it in sight.
    visitor = open_page(color_scheme=scheme, viewport={"width": 1200, "height": 6500})
    assert violations(visitor.page) == []
    for keyword in SCENES:
        visitor.send_message(keyword)
    visitor.page.locator(".workflow summary").click()
    assert violations(visitor.page) == []
    visitor.send_message("notice")
    visitor.page.get_by_role("button", name="Options of markdown").click()
    # What lies under it is covered.
    assert violations(visitor.page, "#popup") == []
    visitor.page.get_by_role("menuitem", name="Delete").click()
    assert violations(visitor.page, "#dialog") == []
    visitor.page.keyboard.press("Escape")
    visitor.send_message("error")
    assert violations(visitor.page) == []
    visitor.page.get_by_label("Message", exact=True).fill("slow")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    assert violations(visitor.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nor_by_what_is_being_written(open_page: OpenPage, scheme: str, tmp_path: Path) -> None:
    visitor = open_page(color_scheme=scheme)
    page = visitor.page
    visitor.send_message("Hello")
    (tmp_path / "tree.png").write_bytes(image_bytes())
    (tmp_path / "notes.txt").write_text("some")
    page.locator("#files").set_input_files([tmp_path / "tree.png", tmp_path / "notes.txt"])
    expect(page.locator(".chip:not(.uploading)")).to_have_count(2)
    visitor.answer.get_by_role("button", name="Quote").click()
    expect(page.locator("#quote")).to_be_visible()
    assert violations(page) == []
    visitor.choose("Hello", "Rename")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.evaluate("document.getElementById('drop').hidden = false")
    # What lies under it is veiled on purpose.
    assert violations(page, "#drop") == []
    page.evaluate("document.getElementById('drop').hidden = true")
    page.get_by_label("User").select_option("Somebody else …")
    expect(page.get_by_role("textbox", name="Name", exact=True)).to_be_focused()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_label("Search conversations").fill("nothing has this title")
    expect(page.locator("#no-hits")).to_be_visible()
    assert violations(page) == []


def test_a_broken_rule_would_be_noticed(open_page: OpenPage) -> None:
    visitor = open_page()
    visitor.page.evaluate(
        """() => {
          document.querySelector("label[for=filter]").remove();
          document.getElementById("filter").removeAttribute("placeholder");
          document.querySelector("#welcome .caption").style.color = "#ccc";
        }"""
    )
    assert [rule.partition(":")[0] for rule in violations(visitor.page)] == ["color-contrast", "label"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_has_its_list_behind_a_button(open_page: OpenPage, scheme: str) -> None:
    visitor = open_page(color_scheme=scheme, **PHONE)
    page = visitor.page
    visitor.send_message("markdown")
    expect(page.get_by_role("link", name="markdown")).to_be_hidden()
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    assert violations(page) == []
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("link", name="markdown")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="markdown")).to_be_hidden()
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation", exact=True).click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.get_by_role("link", name="markdown")).to_be_hidden()


def test_nothing_is_wider_than_a_phone(open_page: OpenPage) -> None:
    visitor = open_page(**PHONE)
    page = visitor.page
    for keyword in SCENES:
        visitor.send_message(keyword)
    visitor.send_message("w" * 300)
    # Its title is one line.
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation", exact=True).click()
    visitor.send_message("How do I change the address of an order that is on its way to somebody else by now? markdown")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Tables and code scroll in frames of their own; a list that hides what sticks out would still cut it off.
    outside = page.evaluate(
        """() => [...document.querySelectorAll("body *:not(.hidden)")]
          .filter((element) => !element.closest("#sidebar, .table, pre, svg, .hidden"))
          .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
          .map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_on_a_phone_actions_belong_to_the_last_answer_and_to_what_was_tapped(open_page: OpenPage) -> None:
    visitor = open_page(**PHONE)
    page = visitor.page
    visitor.send_message("Hello")
    visitor.send_message("Hello again")
    shown = "(items) => items.map((item) => getComputedStyle(item.querySelector('.tools')).opacity)"
    answers = page.locator(".assistant_message")
    assert answers.evaluate_all(shown) == ["0", "1"]
    # What is not shown does nothing.
    hidden = answers.first.locator(".tools button").first
    assert hidden.evaluate("(button) => getComputedStyle(button).pointerEvents") == "none"
    answers.first.locator("p").first.tap()
    assert answers.evaluate_all(shown) == ["1", "1"]
    answers.first.locator(".tools button").first.tap()
    page.get_by_label("Message", exact=True).tap()
    assert answers.evaluate_all(shown) == ["0", "1"]
    # But what a long message shows of itself is always there.
    visitor.send_message("\n".join(f"line {number}" for number in range(60)))
    page.get_by_role("button", name="Show all").tap()
    expect(page.get_by_role("button", name="Show less")).to_be_visible()
    # Each box is as wide as the column.
    visitor.send_message("card")
    assert page.locator(".card").evaluate("(card) => card.offsetWidth === card.closest('ol').clientWidth")


def test_code_and_tables_that_go_on_show_it_on_a_phone(open_page: OpenPage) -> None:
    visitor = open_page(**PHONE)
    visitor.send_message("markdown")
    seen = "(element) => [element.scrollWidth > element.clientWidth, getComputedStyle(element).maskImage !== 'none']"
    parts = visitor.answer.locator(".code pre, .table")
    wide = [part for part in parts.all() if part.evaluate(seen)[0]]
    assert len(wide) >= 2
    for part in parts.all():
        overflows, fades = part.evaluate(seen)
        assert overflows == fades
    for part in wide:
        part.evaluate("(element) => element.scrollTo(element.scrollWidth, 0)")
        visitor.page.wait_for_timeout(200)
        assert part.evaluate(seen) == [True, False]


def test_light_and_dark_are_chosen_and_remembered(open_page: OpenPage) -> None:
    visitor = open_page(color_scheme="light")
    page = visitor.page
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark page").click()
    assert page.evaluate(background) == "rgb(22, 21, 20)"
    page.reload()
    expect(page.get_by_role("button", name="Light page")).to_be_visible()
    assert page.evaluate(background) == "rgb(22, 21, 20)"


def focused(page: Page) -> str:
    return str(
        page.evaluate(
            "(e => e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent)(document.activeElement)"
        )
    ).strip()


def test_everything_is_reached_by_the_keyboard(open_page: OpenPage) -> None:
    visitor = open_page()
    page = visitor.page
    # The field is ready when the page is.
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("buttons")
    page.keyboard.press("Enter")
    visitor.wait_for_turn_end("buttons")
    reached: list[str] = []
    while "Press me" not in reached:
        page.keyboard.press("Shift+Tab")
        reached.append(focused(page))
        assert len(reached) < 20, reached
    page.keyboard.press("Space")
    expect(page.locator(".widget")).to_contain_text("Pressed once")
    assert focused(page) == "Press me"
    while "New conversation" not in reached:
        page.keyboard.press("Shift+Tab")
        reached.append(focused(page))
        assert len(reached) < 40, reached
    assert {"Messages", "Options of buttons", "Options of this conversation", "Search conversations", "User"} <= set(
        reached
    )
    page.keyboard.press("Enter")
    expect(page.locator("#welcome")).to_be_visible()
    assert focused(page) == "Message"
    # The dialog keeps the keyboard, and gives it back.
    page.get_by_role("button", name="Options of buttons").focus()
    page.keyboard.press("Enter")
    assert focused(page) == "Rename"
    page.keyboard.press("ArrowUp")
    assert focused(page) == "Delete"
    page.keyboard.press("Enter")
    assert focused(page) == "Cancel"
    page.keyboard.press("Enter")
    assert focused(page) == "Options of buttons"
    # The menu, too, and Escape in it stops nothing.
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert focused(page) == "Options of buttons"
    expect(page.get_by_role("menu")).to_be_hidden()


def test_a_screen_reader_is_told_what_happens(open_page: OpenPage) -> None:
    visitor = open_page()
    status = visitor.page.get_by_role("status").first
    visitor.send_message("markdown")
    # As it is read, and not as it is written.
    expect(status).to_contain_text("The assistant says: ")
    assert not any(mark in status.inner_text() for mark in ("**", "```", "|"))
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    visitor.send_message("mistake")
    expect(status).to_have_text("The assistant says: Two and two is four.")
    headings = visitor.page.get_by_role("main").get_by_role("heading", level=2)
    expect(headings).to_have_text(["You said:", "The assistant says:"])
    expect(visitor.page.get_by_role("navigation", name="Conversations")).to_be_visible()
    visitor.page.get_by_role("button", name="Good answer").click()
    expect(visitor.page.get_by_role("status").first).to_have_text("Thank you for the feedback.")


def test_pictures_of_the_page(open_page: OpenPage, pictures: Path) -> None:
    light = open_page(user="alice", color_scheme="light")
    for message in ("What time is it?", "workflow", "markdown"):
        light.page.get_by_role("button", name="New conversation", exact=True).click()
        light.send_message(message)
    light.rename("markdown", "Isolation levels")
    dark = open_page(user="alice", color_scheme="dark")
    dark.page.get_by_role("link", name="workflow").click()
    dark.page.locator(".workflow summary").click()
    dark.send_message("citation")
    dark.send_message("list")
    phone = open_page(user="alice", color_scheme="light", viewport={"width": 390, "height": 780}, has_touch=True)
    phone.page.get_by_role("button", name="Conversations").click()
    phone.page.get_by_role("link", name="Isolation levels").click()
    expect(phone.page.locator("table").first).to_be_visible()
    approval = open_page(user="bob", color_scheme="light")
    approval.send_message("approval")
    expect(approval.page.get_by_role("button", name="Approve").first).to_be_visible()
    search = open_page(user="alice", color_scheme="light")
    search.page.get_by_role("searchbox").fill("serializable phantom")
    expect(search.page.locator("#hits mark").first).to_be_visible()
    taken = {"light": light, "dark": dark, "phone": phone, "approval": approval, "search": search}
    for visitor in (light, phone):
        visitor.page.get_by_label("Message", exact=True).focus()
        visitor.page.locator("#log").evaluate("log => log.scrollTo(0, 0)")
    for name, visitor in taken.items():
        visitor.page.wait_for_load_state("networkidle")
        assert len(visitor.page.screenshot(path=pictures / f"playground-{name}.png")) > 20_000


def test_a_moving_picture_of_an_answer_that_goes_on_after_a_reload(open_page: OpenPage, pictures: Path) -> None:
    visitor = open_page(user="carol", color_scheme="light", viewport={"width": 800, "height": 520})
    frames: list[Image.Image] = []

    def take(number: int) -> None:
        for _ in range(number):
            frames.append(Image.open(BytesIO(visitor.page.screenshot())).quantize(64))
            visitor.page.wait_for_timeout(350)

    visitor.page.get_by_label("Message", exact=True).fill("slow")
    take(1)
    visitor.page.locator("#send").click()
    take(7)
    read = visitor.answer.inner_text()
    visitor.page.reload()
    take(9)
    assert len(visitor.answer.inner_text()) > len(read) > 0
    frames[0].save(
        pictures / "reload.gif", save_all=True, append_images=frames[1:], duration=350, loop=0, optimize=True
    )


def test_the_first_thing_a_visitor_sees_proposes_what_to_say(open_page: OpenPage) -> None:
    visitor: Visitor = open_page()
    prompts = visitor.page.locator("#prompts button")
    expect(prompts.first).to_contain_text("What time is it?")
    assert prompts.count() == 4
    everything = visitor.page.locator("#everything button")
    expect(everything.first).to_be_hidden()
    visitor.page.get_by_role("button", name="Show everything").click()
    expect(everything.first).to_be_in_viewport()
    assert everything.count() > 15
    groups = visitor.page.locator("#everything h3").all_inner_texts()
    assert groups == ["Text", "Widgets", "Tools", "Faults", "Approvals"]
    # In place of the few, with the way back in sight.
    expect(prompts.first).to_be_hidden()
    expect(visitor.page.get_by_role("button", name="Show less")).to_be_in_viewport()
    everything.first.press("Escape")
    expect(everything.first).to_be_hidden()
    visitor.page.get_by_role("button", name="Show everything").click()
    visitor.page.get_by_role("button", name="New conversation").first.click()
    expect(everything.first).to_be_hidden()
    prompts.first.click()
    expect(visitor.answer).to_contain_text("UTC")
    expect(visitor.page.locator("#welcome")).to_be_hidden()
