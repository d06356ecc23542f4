"""What is said and answered, and what is left of it after a reload."""

import json
import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import HeldRequests, OpenPage, Visitor
from tests.support.processes import ChatProcess, eventually


@pytest.fixture
def visitor(open_page: OpenPage) -> Visitor:
    return open_page()


def test_a_message_is_answered_and_still_there_after_a_reload(visitor: Visitor) -> None:
    visitor.send_message("Hello there")
    expect(visitor.answer).to_contain_text("You said: Hello there")
    expect(visitor.answer.locator("strong")).to_have_text("Hello there")
    expect(visitor.page.locator("h1")).to_have_text("Hello there")
    shown = visitor.page.locator("#items").inner_text()
    visitor.page.reload()
    expect(visitor.answer).to_contain_text("You said: Hello there")
    visitor.wait_for_turn_end()
    assert visitor.page.locator("#items").inner_text() == shown


def test_enter_sends_and_shift_enter_is_a_new_line(visitor: Visitor) -> None:
    field = visitor.page.get_by_label("Message", exact=True)
    expect(visitor.page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    field.press_sequentially("one")
    field.press("Shift+Enter")
    field.press_sequentially("two")
    expect(field).to_have_value("one\ntwo")
    field.press("Enter")
    expect(visitor.page.locator(".bubble")).to_have_text("one\ntwo")
    expect(field).to_have_value("")


def test_markdown_is_drawn_and_copied_and_nothing_in_it_runs(visitor: Visitor) -> None:
    visitor.send_message("markdown")
    answer = visitor.answer
    expect(answer.locator("table td").nth(1)).to_have_attribute("align", "center")
    assert answer.locator("table tr").count() == 3
    # The first is Python: keywords have a colour of their own.
    keyword, plain = answer.locator("pre .k").first, answer.locator("pre .n").first
    colours = [part.evaluate("part => getComputedStyle(part).color") for part in (keyword, plain)]
    assert colours[0] != colours[1]
    expect(answer).to_contain_text("<b>Markup is shown as it is</b>")
    assert answer.locator("img").count() == 0
    for link in answer.locator("a").all():
        assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer nofollow")
    # It is copied as it was written.
    answer.get_by_role("button", name="Copy the code").nth(1).click()
    eventually(lambda: _clipboard(visitor).startswith("SELECT item_id"))
    answer.get_by_role("button", name="Copy the answer").click()
    eventually(lambda: _clipboard(visitor).startswith("### What Markdown can do here"))


HOSTILE = [
    "<img src=x onerror=\"document.title='broken'\">",
    "[link](javascript:document.title='broken')",
    "![picture](https://evil.example/track.png)",
    "<script>document.title='broken'</script>",
    "<svg/onload=document.title='broken'> <style>*{display:none}</style>",
    '```html"onmouseover="document.title=1\n<script>document.title=1</script>\n```',
    "<https://evil.example/<script>> \ue0000\ue001 \ue00099\ue001",
]


def test_hostile_text_is_only_text(visitor: Visitor) -> None:
    page = visitor.page
    dangerous = page.locator("#items :is(script, style, svg:not(.icon), img, iframe, [onerror], [onmouseover])")
    for hostile in HOSTILE:
        page.get_by_role("button", name="New conversation", exact=True).click()
        visitor.send_message(hostile)
        # The demo model repeats what it is told, as Markdown.
        expect(visitor.answer).to_contain_text("You said:")
        assert dangerous.count() == 0, hostile
        assert page.locator('#items a[href^="javascript"]').count() == 0, hostile
        assert "broken" not in page.title() or page.title().startswith(hostile[:20]), hostile
        assert page.title() != "1", hostile


def test_a_stopped_answer_says_so_after_a_reload_and_can_be_tried_again(visitor: Visitor) -> None:
    page = visitor.page
    ended, stop = page.locator("#ended"), page.get_by_role("button", name="Stop")
    page.get_by_label("Message", exact=True).fill("slow")
    page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    # Escape stops, too.
    page.keyboard.press("Escape")
    expect(ended).to_contain_text("Stopped.")
    expect(stop).to_be_hidden()
    visitor.wait_for_turn_end()
    page.reload()
    expect(ended).to_contain_text("Stopped.")
    # Trying again answers the same message once more.
    ended.locator("button").click()
    expect(stop).to_be_visible()
    expect(page.locator(".assistant_message")).to_have_count(1)
    expect(page.locator(".user_message")).to_have_count(1)
    expect(visitor.answer).to_contain_text("This is")
    page.keyboard.press("Escape")
    expect(ended).to_contain_text("Stopped.")
    # The next message is not stopped, and a reload does not say so.
    visitor.send_message("Hello")
    expect(ended).to_be_hidden()
    page.reload()
    expect(visitor.answer).to_contain_text("You said: Hello")
    expect(ended).to_be_hidden()


def test_a_failed_answer_says_why_after_a_reload_and_can_be_tried_again(visitor: Visitor) -> None:
    page = visitor.page
    ended, reason = page.locator("#ended"), "The demo was asked for an error."
    visitor.send_message("error")
    expect(ended).to_contain_text(reason)
    # Trying again answers the same message once more.
    with page.expect_request_finished(lambda request: "threads.retry_after_item" in (request.post_data or "")):
        ended.locator("button").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(ended).to_contain_text(reason)
    expect(page.locator(".assistant_message")).to_have_count(1)
    visitor.wait_for_turn_end()
    page.reload()
    expect(ended).to_contain_text(reason)
    # The next message has not failed, and a reload does not say so.
    visitor.send_message("Hello")
    expect(ended).to_be_hidden()
    page.reload()
    expect(visitor.answer).to_contain_text("You said: Hello")
    expect(ended).to_be_hidden()


def test_a_retry_that_failed_says_why_also_if_the_page_is_reloaded_at_once(visitor: Visitor) -> None:
    page, ended = visitor.page, visitor.page.locator("#ended")
    visitor.send_message("error")
    expect(ended).to_contain_text("The demo was asked for an error.")
    # The page has not yet learned which answer the server has kept.
    held = HeldRequests(visitor, "items.list")
    ended.locator("button").click()
    held.wait()
    page.unroute("**/api/chatkit")
    page.reload()
    expect(ended).to_contain_text("The demo was asked for an error.")


def test_an_action_that_ended_badly_is_not_offered_again_as_a_message(visitor: Visitor) -> None:
    page = visitor.page
    visitor.expected = ["net::ERR"]
    visitor.send_message("buttons")
    page.route(
        "**/api/chatkit",
        lambda route: route.abort() if "custom_action" in str(route.request.post_data) else route.fallback(),
    )
    page.get_by_role("button", name="Tell me more").click()
    expect(page.locator("#ended")).to_contain_text("connection was lost")
    expect(page.locator("#ended button")).to_be_visible()
    page.reload()
    # Trying again would answer the message anew, and the buttons would go.
    expect(page.locator("#ended")).to_contain_text("connection was lost")
    expect(page.locator("#ended button")).to_have_count(0)


def test_an_answer_is_rated_and_replaced_by_a_retry(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send_message("Hello")
    # Feedback is sent, shown, changed, and there after a reload.
    good, bad = (visitor.answer.get_by_role("button", name=name) for name in ("Good answer", "Bad answer"))
    with page.expect_request(lambda request: "items.feedback" in (request.post_data or "")) as sent:
        good.click()
    assert json.loads(sent.value.post_data or "")["params"]["kind"] == "positive"
    expect(good).to_have_attribute("aria-pressed", "true")
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    expect(good).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(bad).to_have_attribute("aria-pressed", "true")
    # A retry replaces the answer for good.
    first = visitor.answer.get_attribute("data-id")
    visitor.answer.get_by_role("button", name="Try again").click()
    expect(page.locator(f'[data-id="{first}"]')).to_have_count(0)
    visitor.wait_for_turn_end()
    expect(visitor.answer).to_contain_text("You said: Hello")
    page.reload()
    expect(page.locator(".item")).to_have_count(2)
    assert visitor.answer.get_attribute("data-id") != first
    # Only the last answer can be tried again.
    visitor.send_message("two")
    expect(page.get_by_role("button", name="Try again")).to_have_count(1)


def test_the_address_opens_the_conversation_and_back_goes_back(open_page: OpenPage, visitor: Visitor) -> None:
    visitor.send_message("First of two")
    first = visitor.thread
    visitor.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(visitor.page.locator("#welcome")).to_be_visible()
    visitor.send_message("Second of two")
    assert visitor.thread not in ("", first)
    visitor.page.go_back()
    visitor.page.go_back()
    expect(visitor.page.locator(".bubble")).to_have_text("First of two")
    expect(visitor.page.get_by_role("link", name="First of two")).to_have_attribute("aria-current", "page")
    again = open_page(user=visitor.user)
    again.open_page(first)
    again.page.reload()
    expect(again.page.locator(".bubble")).to_have_text("First of two")


def test_a_second_user_sees_nothing_of_it(open_page: OpenPage, visitor: Visitor) -> None:
    visitor.send_message("A secret")
    stranger = open_page()
    expect(stranger.page.locator("#no-threads")).to_have_text("No conversations yet.")
    stranger.expected = ["404"]
    stranger.page.goto("about:blank")
    stranger.open_page(visitor.thread)
    expect(stranger.page.locator("#notices")).to_contain_text("There is no such conversation here.")
    # And is where something can be begun.
    expect(stranger.page.locator("#welcome")).to_be_visible()
    assert stranger.thread == ""
    assert "A secret" not in stranger.page.content()


def test_switching_users_on_one_page_leaves_nothing_behind(visitor: Visitor) -> None:
    visitor.send_message("A secret")
    visitor.page.get_by_label("User").select_option("Somebody else …")
    dialog = visitor.page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(f"{visitor.user}-other")
    dialog.get_by_role("button", name="Continue").click()
    expect(visitor.page.locator("#no-threads")).to_be_visible()
    expect(visitor.page.locator(".item")).to_have_count(0)
    assert visitor.thread == ""
    assert "A secret" not in visitor.page.content()
    visitor.page.get_by_label("User").select_option(visitor.user)
    visitor.page.get_by_role("link", name="A secret").click()
    expect(visitor.page.locator(".bubble")).to_have_text("A secret")


def test_a_refused_message_is_in_its_field_again(visitor: Visitor) -> None:
    visitor.expected = ["422"]
    visitor.page.get_by_label("Message", exact=True).fill("x" * 33_000)
    visitor.page.get_by_role("button", name="Send", exact=True).click()
    expect(visitor.page.locator("#ended")).to_contain_text("This message is too long: it may have 32000 characters")
    expect(visitor.page.get_by_label("Message", exact=True)).to_have_value("x" * 33_000)
    expect(visitor.page.locator(".item")).to_have_count(0)


def test_a_connection_that_breaks_is_made_again_and_stores_one_message(visitor: Visitor) -> None:
    visitor.expected = ["net::ERR"]
    keys: list[str | None] = []

    def once(route: Route) -> None:
        if '"threads.create"' in (route.request.post_data or ""):
            keys.append(route.request.headers.get("idempotency-key"))
            if len(keys) == 1:
                # The server takes it, and its answer gets lost.
                route.fetch()
                route.abort("connectionreset")
                return
        route.continue_()

    visitor.page.route("**/api/chatkit", once)
    visitor.send_message("Only once")
    expect(visitor.answer).to_contain_text("You said: Only once")
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None
    visitor.page.reload()
    expect(visitor.page.locator(".bubble")).to_have_count(1)
    expect(visitor.page.locator("#threads a")).to_have_count(1)


def test_a_lost_server_is_told_and_the_text_is_in_its_field_again(visitor: Visitor) -> None:
    visitor.expected = ["net::ERR"]
    keys: list[str | None] = []
    visitor.page.on("request", lambda request: keys.append(request.headers.get("idempotency-key")))
    visitor.page.route("**/api/chatkit", lambda route: route.abort("connectionrefused"))
    field = visitor.page.get_by_label("Message", exact=True)
    field.fill("Are you there?")
    visitor.page.keyboard.press("Enter")
    expect(visitor.page.locator("#ended")).to_contain_text("The connection was lost.")
    expect(field).to_have_value("Are you there?")
    visitor.page.unroute("**/api/chatkit")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("You said: Are you there?")
    # Whatever became of the first one, it is one message.
    assert len({key for key in keys if key}) == 1


def test_a_long_answer_stays_smooth(visitor: Visitor) -> None:
    page = visitor.page
    page.evaluate(
        """() => {
          window.drawn = 0;
          new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) => {
            if (node.classList?.contains("block")) window.drawn++;
          }))).observe(document.getElementById("items"), { childList: true, subtree: true });
        }"""
    )
    visitor.send_message("long")
    expect(visitor.answer.locator("h3").last).to_have_text("Chapter 40")
    blocks = visitor.answer.locator(".block").count()
    assert blocks == 120
    asked = sum(request.url.endswith("/playground/markdown") for request in visitor.requests)
    # Each word is an event, and each drawing changes the last few blocks only.
    assert asked < 100
    assert page.evaluate("window.drawn") < blocks + 4 * asked
    # It was followed to its end.
    assert (
        page.evaluate("(log => log.scrollHeight - log.scrollTop - log.clientHeight)(document.getElementById('log'))")
        < 100
    )


def test_who_reads_further_up_is_left_there(visitor: Visitor) -> None:
    visitor.send_message("long")
    visitor.page.get_by_label("Message", exact=True).fill("slow")
    visitor.page.keyboard.press("Enter")
    expect(visitor.answer).to_contain_text("This is")
    visitor.scroll_to(200)
    button = visitor.page.get_by_role("button", name="To the newest message")
    expect(button).to_be_visible()
    words = len(visitor.answer.inner_text())
    eventually(lambda: len(visitor.answer.inner_text()) > words + 20)
    assert visitor.page.locator("#log").evaluate("log => log.scrollTop") == 200
    button.click()
    expect(button).to_be_hidden()


def test_older_messages_are_read_on_demand(visitor: Visitor, demo: ChatProcess) -> None:
    client = demo.client(visitor.user)
    thread = next(event["thread"]["id"] for event in client.create("task 1") if event["type"] == "thread.created")
    for number in range(2, 26):
        client.post_message(thread, f"task {number}")
    visitor.open_page(thread)
    visitor.page.reload()
    expect(visitor.page.locator(".item")).to_have_count(40)
    expect(visitor.page.locator(".bubble").first).to_have_text("task 6")
    visitor.page.get_by_role("button", name="Older messages").click()
    expect(visitor.page.locator(".item")).to_have_count(50)
    expect(visitor.page.locator(".bubble")).to_have_text([f"task {number}" for number in range(1, 26)])
    expect(visitor.page.get_by_role("button", name="Older messages")).to_be_hidden()


def test_no_style_or_script_of_an_element_is_needed(visitor: Visitor) -> None:
    policy = visitor.page.request.get(visitor.base_url).headers["content-security-policy"]
    assert not re.search(r"unsafe|https?:|\*", policy)
    for name in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "require-trusted-types-for 'script'"):
        assert name in policy


def _clipboard(visitor: Visitor) -> str:
    return str(visitor.page.evaluate("navigator.clipboard.readText()"))
