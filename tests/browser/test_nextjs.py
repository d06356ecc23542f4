"""The Next.js example, built for production, in front of a real server: what its users and their browsers see."""

import itertools
import json
import re
import statistics
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Error, Page, Response, expect
from sqlalchemy import URL

from tests.browser.conftest import CDN, SLOW, SignIn, send_message, turns
from tests.conftest import query
from tests.support.accessibility import violations
from tests.support.files import image_bytes
from tests.support.nextjs import NextApp, Wire
from tests.support.processes import ChatProcess, eventually

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)

SLOW_GAP_MS = 100
"""Between two words of the demo's slow answer."""


def stored(database: URL, user: str, kind: str) -> list[str]:
    rows = query(
        database,
        f"SELECT content FROM chat_messages WHERE user_id = '{user}' AND item_type = '{kind}' ORDER BY position",
    )
    return [row["content"] for row in rows]


def test_a_user_signs_in_and_chats_and_a_reload_shows_the_conversation(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    expect(ada.page.locator("header")).to_contain_text("Ada")
    send_message(ada.page, "Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    assert re.search(r"\?thread=thr_\w+$", ada.page.url)
    ada.page.reload()
    expect(ada.page.locator(".user_message")).to_have_text("Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")


def test_stop_reaches_the_backend_and_a_reload_shows_what_was_read(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "slow")
    answer = ada.page.locator(".assistant_message")
    expect(answer).to_contain_text("This is a slow")
    assert turns(shared_database, "ada") == ["running"]
    ada.page.get_by_role("button", name="Stop").click()
    eventually(lambda: turns(shared_database, "ada") == ["stopped"], 15, "the turn is stopped")
    seen = answer.inner_text().strip()
    ada.page.reload()
    expect(answer).to_contain_text(seen)
    kept = answer.inner_text().strip()
    assert SLOW.startswith(kept)
    assert len(kept) < len(SLOW)


def options_of(page: Page) -> dict[str, Any]:
    """Those that ChatKit's component was given."""
    found: dict[str, Any] = page.evaluate(
        "JSON.parse(JSON.stringify(document.querySelector('openai-chatkit').options))"
    )
    return found


def test_what_the_server_allows_reaches_the_component(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    expect(ada.page.get_by_role("heading", name="Harbour office")).to_be_visible()
    options = options_of(ada.page)
    assert [model["id"] for model in options["composer"]["models"]] == ["demo", "large"]
    # ChatKit demands an icon of each tool.
    assert options["composer"]["tools"] == [{"id": "current_time", "label": "Current time", "icon": "settings-slider"}]
    attachments = options["composer"]["attachments"]
    assert (attachments["enabled"], attachments["maxCount"]) == (True, 4)
    assert attachments["accept"]["application/pdf"] == [".pdf"]
    assert options["composer"]["dictation"] == {"enabled": False}
    assert options["startScreen"]["greeting"] == "What can I do for you?"
    assert "What time is it?" in [prompt["label"] for prompt in options["startScreen"]["prompts"]]
    assert options["frameTitle"] == "Harbour office"
    assert "can be wrong" in options["disclaimer"]["text"]
    assert options["threadItemActions"] == {"feedback": True, "retry": True}
    assert options["history"] == {"enabled": True, "showDelete": True, "showRename": True}


COMPONENT = "document.querySelector('openai-chatkit')"


def test_the_theme_follows_the_system_until_the_user_chooses(sign_in: SignIn) -> None:
    page = sign_in("Ada").page
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"(scheme) => {COMPONENT}.options.theme === scheme", arg=scheme)
    assert options_of(page)["header"]["rightAction"]["icon"] == "dark-mode"
    page.evaluate(f"{COMPONENT}.options.header.rightAction.onClick()")
    page.wait_for_function(f"() => {COMPONENT}.options.theme === 'dark'")
    page.reload()
    expect(page.get_by_label("Say")).to_be_visible()
    page.wait_for_function(f"() => {COMPONENT}.options.theme === 'dark'")
    assert options_of(page)["header"]["rightAction"]["icon"] == "light-mode"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(sign_in: SignIn, app: NextApp, scheme: Any) -> None:
    page = sign_in("Ada").page
    page.emulate_media(color_scheme=scheme)
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 2400})
        page.goto(app.base_url)
        expect(page.get_by_label("Say")).to_be_visible()
        # The component is the tests' stand-in.
        assert violations(page, without="openai-chatkit") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        send_message(page, "A pearl")
        expect(page.locator(".assistant_message")).to_contain_text("and a real model answers")
        page.get_by_label("Search conversations").fill("pearl")
        expect(page.get_by_role("list", name="Found").get_by_text("You said").first).to_be_visible()
        assert violations(page, without="openai-chatkit") == []
        page.get_by_label("Search conversations").fill("nothing like that")
        expect(page.get_by_text("Nothing has these words.")).to_be_visible()
        assert violations(page, without="openai-chatkit") == []
        page.goto(f"{app.base_url}/shop")
        assert violations(page) == []
        page.get_by_role("button", name="Ask us").click()
        expect(page.get_by_label("Say")).to_be_visible()
        assert violations(page, without="openai-chatkit") == []
    page.goto(app.base_url)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
    assert violations(page) == []


def test_a_mention_is_one_of_the_users_orders(sign_in: SignIn) -> None:
    page = sign_in("Ada").page
    options = options_of(page)
    assert (options["locale"], options["entities"]["showComposerMenu"]) == ("en", True)
    assert options["header"]["title"]["text"] == "Harbour office"
    (order,) = page.evaluate(f"{COMPONENT}.options.entities.onTagSearch('order 7')")
    assert (order["id"], order["title"], order["interactive"]) == ("order-7", "Order 7", True)
    preview = page.evaluate(f"order => {COMPONENT}.options.entities.onRequestPreview(order)", order)
    assert preview["preview"]["children"][1]["value"] == "on its way"
    page.evaluate(f"order => {COMPONENT}.options.entities.onClick(order)", order)
    page.wait_for_url("**/shop#order-7")


def test_actions_of_widgets_are_the_pages_or_the_servers(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    act = f"action => {COMPONENT}.options.widgets.onAction(action, {{id: 'widget-1'}})"
    ada.expected = ["404", "does not exist"]
    with ada.page.expect_request(lambda request: "threads.custom_action" in (request.post_data or "")) as sent:
        ada.page.evaluate(act, {"type": "order.cancel", "payload": {"order": 7}})
    params = json.loads(sent.value.post_data or "")["params"]
    assert (params["item_id"], params["action"]["payload"]) == ("widget-1", {"order": 7})
    ada.page.evaluate(act, {"type": "page.open", "payload": {"id": "order-8"}})
    ada.page.wait_for_url("**/shop#order-8")


def test_an_effect_is_shown_and_the_model_is_told_of_the_page(sign_in: SignIn) -> None:
    page = sign_in("Ada").page
    with page.expect_request(lambda request: "threads.create" in (request.post_data or "")) as sent:
        send_message(page, "effect")
    metadata = json.loads(sent.value.post_data or "")["metadata"]
    assert metadata == {"userInfo": {"name": "Ada"}, "pageContext": {"path": "/", "title": "Chat"}}
    expect(page.get_by_role("status")).to_contain_text("The assistant asked for: open panel.")
    page.get_by_role("status").get_by_role("button", name="Close").click()
    expect(page.get_by_text("The assistant asked for")).to_have_count(0)


def test_an_answer_that_comes_while_nobody_looks_is_in_the_title(sign_in: SignIn) -> None:
    page = sign_in("Ada").page
    look = "state => Object.defineProperty(document, 'visibilityState', {value: state, configurable: true})"
    page.evaluate(look, "hidden")
    send_message(page, "Hello there")
    expect(page).to_have_title("● Chat")
    page.evaluate(look, "visible")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page).to_have_title("Chat")


def test_the_chat_is_a_bubble_on_another_page(sign_in: SignIn, pictures: Path) -> None:
    ada = sign_in("Ada")
    ada.page.goto(f"{ada.base_url}/shop")
    ada.page.get_by_role("button", name="Ask us").click()
    send_message(ada.page, "slow")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is")
    ada.page.screenshot(path=pictures / "nextjs-bubble.png")
    # Its answer goes on while it is closed.
    ada.page.get_by_role("button", name="Close the chat").click()
    expect(ada.page.get_by_label("Say")).to_be_hidden()
    ada.page.get_by_role("button", name="Ask us").click()
    expect(ada.page.locator(".assistant_message")).to_contain_text(SLOW)


def test_the_policy_of_a_page_names_each_script_by_its_nonce(app: NextApp) -> None:
    found = []
    for _ in range(2):
        answer = httpx2.get(app.base_url)
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self' 'nonce-" in policy
        assert "unsafe-eval" not in policy
        (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
        assert answer.text.count(f'nonce="{nonce}"') >= answer.text.count("<script") > 3
        found.append(nonce)
    assert found[0] != found[1]


def test_the_rest_of_the_address_stays_when_a_thread_begins(sign_in: SignIn) -> None:
    page = sign_in("Ada").page
    page.goto(f"{page.url}?campaign=spring")
    send_message(page, "Hello there")
    expect(page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    assert re.search(r"\?campaign=spring&thread=thr_\w+$", page.url)


def test_a_session_that_has_ended_leads_to_the_sign_in(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    ada.expected = ["401", "Please sign in"]
    ada.context.clear_cookies()
    send_message(ada.page, "Hello there")
    expect(ada.page.get_by_text("Your session has ended.")).to_be_visible()
    ada.page.get_by_role("button", name="Sign in").click()
    expect(ada.page.get_by_role("heading", name="Who are you?")).to_be_visible()


def test_a_message_is_found_and_its_conversation_opened(sign_in: SignIn, pictures: Path) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "A <pearl> in the sea")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    address = ada.page.url
    ada.page.goto(address.partition("?")[0])
    search = ada.page.get_by_label("Search conversations")
    search.fill("sea pearl")
    hits = ada.page.get_by_role("list", name="Found").get_by_role("button")
    expect(hits.first).to_contain_text("A <pearl> in the sea")
    expect(hits.first.locator("mark")).to_have_text(["pearl", "sea"])
    ada.page.screenshot(path=pictures / "nextjs-search.png")
    hits.filter(has=ada.page.get_by_text("You said")).first.click()
    expect(ada.page.locator(".user_message")).to_have_text("A <pearl> in the sea")
    assert ada.page.url == address
    expect(ada.page.get_by_role("note")).to_contain_text("pearl")
    grace = sign_in("Grace")
    grace.page.get_by_label("Search conversations").fill("sea pearl")
    expect(grace.page.get_by_text("Nothing has these words.")).to_be_visible()


def test_a_second_user_sees_nothing(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "A secret")
    expect(ada.page.locator(".assistant_message")).to_contain_text("A secret")
    grace = sign_in("Grace")
    grace.expected = ["404", "does not exist"]
    grace.page.goto(ada.page.url)
    expect(grace.page.get_by_role("alert").filter(has_text="does not exist")).to_be_visible()
    assert "A secret" not in grace.page.content()
    # Nor on the same machine, after the first one has left.
    ada.expected = ["404", "does not exist"]
    ada.page.get_by_role("button", name="Sign out").click()
    expect(ada.page.get_by_role("heading", name="Who are you?")).to_be_visible()
    ada.page.get_by_role("button", name="Grace").click()
    expect(ada.page.get_by_label("Say")).to_be_visible()
    assert "A secret" not in ada.page.content()


def test_a_file_is_uploaded_shown_and_sent(sign_in: SignIn, tmp_path: Path) -> None:
    ada = sign_in("Ada")
    file = tmp_path / "tree.png"
    file.write_bytes(image_bytes())
    ada.page.get_by_label("File", exact=True).set_input_files(file)
    preview = ada.page.get_by_role("list", name="Files").get_by_alt_text("tree.png")
    eventually(lambda: preview.count() == 1 and preview.evaluate("image => image.naturalWidth") > 0)
    send_message(ada.page, "Look")
    sent = ada.page.locator(".user_message").get_by_alt_text("tree.png")
    eventually(lambda: sent.count() == 1 and sent.evaluate("image => image.naturalWidth") > 0)
    expect(ada.page.locator(".assistant_message")).to_contain_text("You said")
    ada.page.reload()
    eventually(lambda: sent.count() == 1 and sent.evaluate("image => image.naturalWidth") > 0)
    # All of it through the app's own address.
    assert ada.outside == []


def test_no_token_is_ever_visible_to_the_page(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    bodies: list[str] = []
    ada.page.on("response", lambda response: bodies.append(_text_of(response)))
    send_message(ada.page, "Hello")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    ada.page.reload()
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    token = re.compile(r"eyJ[\w-]{10,}\.")
    assert ada.page.evaluate("document.cookie") == ""
    seen = [ada.page.content(), ada.page.evaluate("JSON.stringify([localStorage, sessionStorage])"), *bodies]
    assert len(bodies) > 5
    assert not any(token.search(text) for text in seen)
    for request in ada.requests:
        assert "authorization" not in request.headers
    (cookie,) = ada.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")


def _text_of(response: Response) -> str:
    try:
        return json.dumps(response.headers) + response.text()
    except (Error, UnicodeDecodeError):
        # Redirects and pictures have no text.
        return ""


def test_the_cookie_is_no_token_for_the_backend(sign_in: SignIn, backend: ChatProcess) -> None:
    ada = sign_in("Ada")
    (cookie,) = ada.context.cookies()
    answer = httpx2.post(
        f"{backend.base_url}/api/chatkit",
        json={"type": "threads.list", "params": {}},
        headers={"Authorization": f"Bearer {cookie['value']}"},
        timeout=60,
    )
    assert answer.status_code == 401


def test_the_stream_is_not_buffered(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "slow")
    eventually(lambda: ada.page.evaluate("(window.arrivals ?? []).length") >= 30, 15)
    ada.page.get_by_role("button", name="Stop").click()
    arrivals = ada.page.evaluate("window.arrivals")
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    # Each word comes when the source sends it; words that were collected would have no gaps between them.
    assert statistics.median(gaps) / SLOW_GAP_MS > 0.6
    assert sum(gap > SLOW_GAP_MS / 4 for gap in gaps) / len(gaps) > 0.7


def test_a_repeated_post_after_a_cut_connection_stores_one_message(
    sign_in: SignIn, app: NextApp, shared_database: URL
) -> None:
    wire = Wire(app.port)
    ada = sign_in("Ada", f"http://127.0.0.1:{wire.port}")
    ada.expected = ["net::ERR"]
    wire.cut_once_at(b"built-in")
    posts: list[str | None] = []
    ada.page.on(
        "request",
        lambda request: (
            posts.append(request.headers.get("idempotency-key"))
            if "threads.create" in (request.post_data or "")
            else None
        ),
    )
    send_message(ada.page, "Only once")
    eventually(lambda: wire.cuts == 1, what="the connection is cut")
    expect(ada.page.locator(".assistant_message")).to_contain_text("built-in")
    assert len(posts) == 2
    assert posts[0] == posts[1] is not None
    eventually(lambda: "running" not in turns(shared_database, "ada"))
    assert stored(shared_database, "ada", "user_message") == ["Only once"]
    assert len(stored(shared_database, "ada", "assistant_message")) == 1
    assert len(turns(shared_database, "ada")) == 1
    # Said again on purpose, it is another message.
    send_message(ada.page, "Only once")
    expect(ada.page.locator(".assistant_message").last).to_contain_text("message number 2 of yours")
    assert stored(shared_database, "ada", "user_message") == ["Only once"] * 2
    wire.close()


def test_the_same_words_after_a_stop_are_another_message(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    send_message(ada.page, "task")
    expect(ada.page.locator(".user_message")).to_have_count(1)
    for count in (2, 3):
        send_message(ada.page, "slow")
        expect(ada.page.locator(".assistant_message")).to_have_count(count - 1)
        expect(ada.page.locator(".assistant_message").last).to_contain_text("This is")
        ada.page.get_by_role("button", name="Stop").click()
        eventually(lambda: "running" not in turns(shared_database, "ada"))
    assert stored(shared_database, "ada", "user_message") == ["task", "slow", "slow"]


def test_without_the_script_the_page_says_so_at_once(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    ada.page.unroute(CDN)
    ada.page.route(CDN, lambda route: route.abort())
    ada.expected = ["net::ERR_FAILED"]
    ada.page.reload()
    expect(ada.page.get_by_role("alert").filter(has_text="The chat could not be loaded.")).to_be_visible(timeout=5_000)


def test_a_script_that_never_comes_is_given_up(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    ada.page.unroute(CDN)
    ada.page.route(CDN, lambda _: None)
    ada.page.clock.install()
    ada.page.reload(wait_until="commit")
    # The page's own script puts it there, and looks at the clock from then on.
    expect(ada.page.locator(f'script[src="{CDN}"]')).to_be_attached(timeout=60_000)
    missing = ada.page.get_by_role("alert").filter(has_text="The chat could not be loaded.")
    ada.page.clock.run_for(9_000)
    expect(missing).to_be_hidden()

    def given_up() -> bool:
        ada.page.clock.run_for(2_000)
        return missing.is_visible()

    eventually(given_up, seconds=60)
