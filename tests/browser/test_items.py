"""Everything the demo assistant shows, used as people use it."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, Visitor
from tests.support.processes import eventually


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def test_a_card_is_drawn_and_copied_and_text_grows_in_a_widget(visitor: Visitor) -> None:
    visitor.send_message("card")
    card = visitor.page.locator(".widget .card")
    expect(card.locator(".badge")).to_have_text("on its way")
    expect(card.locator("li")).to_have_text(["packed", "sent"])
    visitor.page.get_by_role("button", name="Copy", exact=True).click()
    eventually(lambda: visitor.page.evaluate("navigator.clipboard.readText()") == "Order 4711 is on its way.")
    visitor.send_message("writing")
    written = visitor.page.locator(".widget").last
    expect(written.locator(".markdown")).to_have_text("This text grows inside a widget.")
    expect(written.locator(".badge")).to_have_text("done")


def test_choosing_in_a_list_changes_it_and_keeps_the_keyboard_there(visitor: Visitor) -> None:
    visitor.send_message("list")
    row = visitor.page.get_by_role("button", name="Oslo")
    row.focus()
    visitor.page.keyboard.press("Enter")
    expect(row.locator(".badge")).to_have_text("chosen")
    expect(row).to_be_focused()
    visitor.page.reload()
    expect(row.locator(".badge")).to_have_text("chosen")


def test_a_form_asks_for_what_it_needs_and_is_answered(visitor: Visitor) -> None:
    visitor.send_message("form")
    form = visitor.page.locator(".widget form")
    form.get_by_role("button", name="Send").click()
    # The browser asks for the required field, and nothing is sent.
    expect(form.get_by_label("Your name")).to_be_focused()
    form.get_by_label("Your name").fill("Ada")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("Thank you, Ada.")
    expect(visitor.page.locator(".widget")).to_contain_text("Sent for Ada")
    visitor.page.reload()
    expect(visitor.page.locator(".widget")).to_contain_text("Sent for Ada")


def test_buttons_count_and_are_answered(visitor: Visitor) -> None:
    visitor.send_message("buttons")
    press = visitor.page.get_by_role("button", name="Press me")
    press.click()
    expect(visitor.page.locator(".widget")).to_contain_text("Pressed once")
    press.click()
    expect(visitor.page.locator(".widget")).to_contain_text("Pressed 2 times")
    visitor.page.get_by_role("button", name="Tell me more").click()
    expect(visitor.answer).to_contain_text("There is more to say about buttons")
    visitor.page.reload()
    expect(visitor.page.locator(".widget")).to_contain_text("Pressed 2 times")


def test_pictures_are_drawn(visitor: Visitor) -> None:
    visitor.send_message("picture")
    image = visitor.page.get_by_alt_text("A yellow circle on dark blue")
    eventually(lambda: image.evaluate("image => image.naturalWidth") > 0)
    visitor.send_message("draw")
    drawn = visitor.page.get_by_alt_text("Generated image")
    eventually(lambda: drawn.evaluate("image => image.naturalWidth") == 640)
    visitor.page.reload()
    eventually(lambda: drawn.evaluate("image => image.naturalWidth") == 640)


def test_a_client_tool_is_run_by_the_page_and_answered(visitor: Visitor) -> None:
    visitor.send_message("tool")
    expect(visitor.answer).to_contain_text("Your browser says: title “tool \u2013 Assistant”")
    expect(visitor.page.locator(".client_tool_call")).to_have_text("get page title: done")


def test_a_tool_call_that_waits_can_be_answered_after_a_reload(visitor: Visitor) -> None:
    visitor.expected = ["net::ERR"]

    def refuse(route: object) -> None:
        if "add_client_tool_output" in (route.request.post_data or ""):  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    visitor.page.route("**/api/chatkit", refuse)
    visitor.send_message("tool")
    expect(visitor.page.locator("#ended")).to_contain_text("The connection was lost.")
    visitor.page.unroute("**/api/chatkit")
    visitor.page.reload()
    visitor.page.get_by_role("button", name="Answer it").click()
    expect(visitor.answer).to_contain_text("Your browser says:")


def test_questions_are_answered(visitor: Visitor) -> None:
    visitor.send_message("questions")
    form = visitor.page.locator("form.questions")
    form.get_by_label("L", exact=True).check()
    form.get_by_label("gift wrap").check()
    form.get_by_label("card").check()
    form.get_by_label("Anything else?").fill("Ring twice")
    form.get_by_role("button", name="Answer").click()
    expect(visitor.answer).to_contain_text("Which size? L; Which extras? gift wrap, card; Anything else? Ring twice")
    expect(visitor.page.locator("dl.questions dd")).to_have_text(["L", "gift wrap, card", "Ring twice"])
    visitor.page.reload()
    expect(visitor.page.locator("dl.questions dd")).to_have_text(["L", "gift wrap, card", "Ring twice"])


def test_questions_take_words_of_ones_own_and_can_be_skipped(visitor: Visitor) -> None:
    visitor.send_message("questions")
    form = visitor.page.locator("form.questions")
    form.get_by_label("S", exact=True).check()
    form.get_by_label("Which size? Something else").fill("XXL")
    expect(form.get_by_label("S", exact=True)).not_to_be_checked()
    form.get_by_role("button", name="Answer").click()
    expect(visitor.answer).to_contain_text("Which size? XXL")
    expect(visitor.page.locator("dl.questions dd")).to_have_text(["XXL", "no answer", "no answer"])
    # Without any answer they can only be skipped.
    visitor.send_message("questions")
    expect(form.get_by_role("button", name="Answer")).to_be_disabled()
    form.get_by_role("textbox").last.fill("Ring twice")
    expect(form.get_by_role("button", name="Answer")).to_be_enabled()
    form.get_by_role("textbox").last.fill("")
    expect(form.get_by_role("button", name="Answer")).to_be_disabled()
    form.get_by_role("button", name="Skip").click()
    visitor.wait_for_turn_end()
    expect(visitor.answer).to_contain_text("You skipped the questions.")
    expect(visitor.page.locator(".structured_input").last).to_have_text("You skipped the questions.")


def test_a_workflow_shows_its_tasks_and_its_progress(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate(
        """() => {
          window.seen = [];
          new MutationObserver(() => {
            const text = document.getElementById("progress").textContent;
            if (text && text !== window.seen.at(-1)) window.seen.push(text);
          }).observe(document.getElementById("progress"), { childList: true });
        }"""
    )
    visitor.send_message("workflow")
    assert [f"Step {number} of 5" for number in range(1, 6)] == page.evaluate("window.seen")[1:]
    workflow = page.locator(".workflow details")
    expect(workflow.locator("summary")).to_have_text("All done · 5 steps")
    assert not workflow.evaluate("details => details.open")
    workflow.locator("summary").click()
    expect(workflow.locator("li .task-title")).to_have_text(
        ["Thinking", "Searching", "Reading", "Looking at a picture", "Writing it down"]
    )
    expect(workflow.get_by_role("link", name="PostgreSQL documentation")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()


def test_a_single_step_is_named_and_not_timed(visitor: Visitor) -> None:
    summaries = visitor.page.evaluate(
        """async () => {
          const { drawWorkflow } = await import("/playground/tasks.js");
          const task = { type: "custom", title: "planets: today", status_indicator: "complete" };
          const summary = { duration: 0 };
          return [
            { type: "custom", tasks: [task], summary },
            { type: "custom", tasks: [task, task], summary },
            { type: "custom", tasks: [task, task], summary: { duration: 3 } },
            { type: "reasoning", tasks: [task], summary },
            { type: "reasoning", tasks: [task], summary: { duration: 1 } },
            { type: "reasoning", tasks: [task], summary: { duration: 12 } },
          ].map((workflow) => drawWorkflow({ workflow }, false).querySelector("summary").textContent);
        }"""
    )
    assert summaries == [
        "planets: today",
        "2 steps",
        "2 steps in 3 seconds",
        "Thought for a moment",
        "Thought for a second",
        "Thought for 12 seconds",
    ]


def test_citations_stand_where_they_belong_and_an_entity_can_be_opened(visitor: Visitor) -> None:
    visitor.send_message("citation")
    expect(visitor.answer.locator(".block").first).to_have_text(
        "A UUID of version 5 is a hash[1]. The handbook says so too[2]."
    )
    expect(visitor.answer.locator(".sources li")).to_have_text(["RFC 9562 IETF", "Handbook, page 12 handbook.pdf"])
    link = visitor.answer.get_by_role("link", name="RFC 9562")
    assert link.get_attribute("href") == "https://www.rfc-editor.org/rfc/rfc9562"
    visitor.send_message("entity")
    visitor.answer.get_by_role("button", name="4711").click()
    expect(visitor.page.locator(".notice")).to_contain_text("Order 4711 number: 4711")


def test_notices_of_every_level_are_shown_and_dismissed(visitor: Visitor) -> None:
    visitor.send_message("notice")
    notices = visitor.page.locator(".notice")
    expect(notices).to_have_count(3)
    expect(notices.first).to_contain_text("By the way This is only a demo.")
    expect(notices.first.locator("strong").last).to_have_text("only")
    assert [notice.get_attribute("role") for notice in notices.all()] == ["status", "alert", "alert"]
    for left in (2, 1, 0):
        notices.first.get_by_role("button", name="Dismiss").click()
        expect(notices).to_have_count(left)


def test_tasks_effects_and_what_is_taken_back(visitor: Visitor) -> None:
    visitor.send_message("task")
    expect(visitor.page.locator(".task").last).to_contain_text("Looked it up")
    visitor.send_message("effect")
    expect(visitor.page.locator(".notice")).to_contain_text("The page is asked to open panel panel: orders, id: 4711")
    visitor.send_message("mistake")
    expect(visitor.answer).to_contain_text("Two and two is four.")
    assert "Two and two is five." not in visitor.page.locator("#items").inner_text()


def test_everything_looks_the_same_after_a_reload(visitor: Visitor) -> None:
    for keyword in ("card", "list", "workflow", "task", "citation", "entity", "writing"):
        visitor.send_message(keyword)
    shown = visitor.page.locator("#items").inner_text()
    visitor.page.reload()
    expect(visitor.page.locator(".item").last).to_be_visible()
    eventually(lambda: visitor.page.locator("#items").inner_text() == shown, what="the same text is shown")
