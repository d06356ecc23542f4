"""Components that the demo does not use, and widgets that are wrong."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import OpenPage, Visitor, page_opener
from tests.support.accessibility import violations
from tests.support.processes import ChatProcess


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, embedded_settings: dict[str, str]) -> Iterator[ChatProcess]:
    settings = embedded_settings | {"CHAT_ASSISTANT": "tests.support.widgets:build"}
    server = ChatProcess(tmp_path_factory.mktemp("shop"), **settings)
    yield server.wait_until_ready()
    assert server.stop() == 0


@pytest.fixture
def open_page(chromium: Browser, shop: ChatProcess) -> Iterator[OpenPage]:
    yield from page_opener(chromium, shop)


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def action_payload(visitor: Visitor, kind: str) -> object:
    expect(visitor.answer).to_contain_text(f"{kind} ")
    visitor.wait_for_turn_end()
    return json.loads(visitor.answer.locator("code").inner_text())


FILLED = {
    "customer": {"name": "Ada"},
    "note": "Ring twice",
    "size": "l",
    "gift": True,
    "way": "bike",
    "day": "2026-12-24",
    "elements": "y",
    "label": "By foot",
}


def fill(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_label("Note").fill("Ring twice")
    page.get_by_label("size").select_option("Large")
    page.get_by_label("As a gift").check()
    page.get_by_label("By bike").check()
    expect(page.get_by_label("By air")).to_be_disabled()
    page.get_by_label("Day").fill("2026-12-24")
    expect(page.get_by_label("Label")).to_have_value("By hand")
    page.get_by_label("Label").fill("By foot")


def without_oddity(values: object) -> dict[str, object]:
    assert isinstance(values, dict)
    assert values.pop("__proto__") == {"broken": "x"}
    return values


def test_a_form_sends_everything_it_holds(visitor: Visitor) -> None:
    visitor.send_message("order")
    expect(visitor.page.locator(".widget")).to_contain_text("Not sent yet")
    assert violations(visitor.page) == []
    fill(visitor)
    visitor.page.get_by_role("button", name="Order", exact=True).click()
    assert without_oddity(action_payload(visitor, "order")) == FILLED
    # A field cannot reach what the page itself is made of.
    assert visitor.page.evaluate("({}).broken") is None


def test_a_button_in_a_form_sends_it_too_and_what_it_says_itself_comes_first(visitor: Visitor) -> None:
    visitor.send_message("order")
    fill(visitor)
    visitor.page.get_by_role("button", name="Save a draft").click()
    assert without_oddity(action_payload(visitor, "draft")) == FILLED | {"note": "the action's own"}
    # What was typed is still there.
    expect(visitor.page.get_by_label("Day")).to_have_value("2026-12-24")


def test_a_form_can_be_cancelled(visitor: Visitor) -> None:
    visitor.send_message("order")
    visitor.page.get_by_role("button", name="Forget it").click()
    expect(visitor.answer).to_contain_text("forgotten")


def test_a_choice_is_sent_when_it_is_made_and_a_clients_action_is_shown(visitor: Visitor) -> None:
    visitor.send_message("choose")
    # Nothing is chosen before somebody does.
    expect(visitor.page.get_by_label("pick")).to_have_value("")
    visitor.page.get_by_label("pick").select_option("B")
    assert action_payload(visitor, "picked") == {"pick": "b"}
    visitor.page.get_by_role("button", name="Here").click()
    expect(visitor.page.locator(".notice")).to_contain_text("For the page: here id: 1")


def test_of_a_long_list_the_first_rows_are_shown_until_the_rest_is_wanted(visitor: Visitor) -> None:
    visitor.send_message("long")
    rows = visitor.page.locator(".widget li button:visible")
    expect(rows).to_have_text(["Row 0", "Row 1"])
    visitor.page.get_by_role("button", name="Show 3 more").click()
    expect(rows).to_have_count(5)
    expect(rows.nth(2)).to_be_focused()
    rows.nth(4).click()
    assert action_payload(visitor, "picked") == {"number": 4}


def test_what_cannot_be_drawn_stops_nothing(visitor: Visitor) -> None:
    visitor.expected = ["TypeError"]
    for keyword, shown in (("odd", "(This widget cannot be drawn.)"), ("unknown", "(Hologram is not drawn here)")):
        visitor.send_message(keyword)
        expect(visitor.page.locator(".widget").last).to_contain_text(shown)
    expect(visitor.page.locator(".widget").last).to_contain_text("inside")
    visitor.page.reload()
    expect(visitor.page.locator(".item")).to_have_count(4)


def test_a_chart_is_its_figures_and_pictures_of_other_hosts_are_not_loaded(visitor: Visitor) -> None:
    visitor.send_message("chart")
    expect(visitor.page.locator(".widget td")).to_have_text(["2025", "1", "2026", "2"])
    expect(visitor.page.locator(".widget")).to_contain_text("Picture of another host: A chart elsewhere")
    assert visitor.page.locator(".widget img").count() == 0
