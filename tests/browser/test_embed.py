"""The page in an iframe: pages of allowed origins show it and give it tokens, and no other page can."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from chatkit_postgres.auth.tokens import mint
from tests.browser.conftest import wait_until
from tests.faults.harness import SECRET, new_user
from tests.support.accessibility import violations
from tests.support.processes import ROOT, ChatClient, ChatProcess, http

(BUBBLE,) = re.findall(r"```html bubble\.html\n(.*?)```", (ROOT / "docs" / "embed.md").read_text(), re.DOTALL)


class Site:
    """A site of a team's own: the page of the document, and a route that says who is signed in."""

    def __init__(self) -> None:
        self.page, self.user, self.seconds = "", new_user(), 600
        self.tokens = 0
        self.slow_page = ""
        """Does not answer, but counts how often it was asked for a token."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/chat-token":
                    site.tokens += 1
                    kind, body = "application/json", f'{{"token": "{mint(SECRET, site.user, seconds=site.seconds)}"}}'
                else:
                    page = site.page if self.path == "/" else site.slow_page if self.path == "/slow" else ""
                    kind, body = "text/html", page
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[Site, Site]]:
    allowed, other = Site(), Site()
    yield allowed, other
    allowed.close()
    other.close()


@pytest.fixture(scope="module")
def server(
    sites: tuple[Site, Site], tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None
) -> Iterator[ChatProcess]:
    settings = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    settings |= {"CHAT_JWT_SECRET": SECRET, "CHAT_EMBED_ORIGINS": sites[0].url}
    process = ChatProcess(tmp_path_factory.mktemp("embed"), **settings).wait_until_ready()
    for site in sites:
        site.page = BUBBLE.replace("https://chat.example.com", process.base_url)
        counts = "<script>var asked = 0</script>"
        site.slow_page = counts + re.sub(r"(token-needed.\)) post\(.*?\);\n", r"\1 asked++;\n", site.page)
    yield process
    assert process.stop() == 0


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(reduced_motion="reduce")
    yield context.new_page()
    context.close()


def opened(page: Page, site: Site) -> FrameLocator:
    page.goto(site.url)
    page.get_by_role("button", name="Ask us").click()
    chat = page.frame_locator("#chat")
    expect(chat.locator("main:not([aria-busy])")).to_be_attached()
    return chat


def say(chat: FrameLocator, text: str) -> None:
    chat.get_by_label("Message", exact=True).fill(text)
    chat.get_by_label("Message", exact=True).press("Enter")
    expect(chat.locator(".user_message").last).to_contain_text(text)
    expect(chat.locator("#send")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_rule_of_accessibility_is_broken(
    page: Page, sites: tuple[Site, Site], server: ChatProcess, scheme: Any, width: int
) -> None:
    sites[0].user, sites[0].seconds = new_user(), 600
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 3000})
    chat = opened(page, sites[0])
    # All of it in sight.
    page.add_style_tag(content="#chat { height: 2900px !important }")
    (frame,) = (frame for frame in page.frames if frame != page.main_frame)
    # In this frame, and the page that shows it.
    assert violations(frame) == []
    assert violations(page, without="iframe") == []
    for words in ("markdown", "card", "workflow", "notice", "approval"):
        say(chat, words)
    assert violations(frame) == []
    assert frame.evaluate("[document.documentElement.scrollWidth <= innerWidth, scrollX]") == [True, 0]
    say(chat, "error")
    assert violations(frame) == []


def test_an_allowed_page_shows_it_and_its_user_talks(page: Page, sites: tuple[Site, Site], server: ChatProcess) -> None:
    site, _ = sites
    site.user, site.seconds = new_user(), 600
    complaints = list[str]()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    outside = list[str]()
    page.on("request", lambda request: outside.append(request.url))
    chat = opened(page, site)
    expect(chat.locator("nav, #user, #theme")).to_have_count(0)
    say(chat, "markdown")
    expect(chat.locator(".assistant_message strong").first).to_have_text("strong")
    client = ChatClient(server.base_url, mint(SECRET, site.user, seconds=600))
    (thread,) = client.post("threads.list", limit=5).json()["data"]
    page.wait_for_function("(id) => sessionStorage.thread === id", arg=thread["id"])
    # Your page was loaded again: it names the conversation, and the token is asked for anew.
    chat = opened(page, site)
    expect(chat.locator(".assistant_message strong").first).to_have_text("strong")
    chat.get_by_role("button", name="New conversation").click()
    expect(chat.locator(".assistant_message")).to_have_count(0)
    page.wait_for_function("() => sessionStorage.thread === ''")
    assert [url for url in outside if not url.startswith((site.url, server.base_url, "data:"))] == []
    assert complaints == []


def test_what_the_assistant_asks_of_the_page_is_told_to_it(
    page: Page, sites: tuple[Site, Site], server: ChatProcess
) -> None:
    site, _ = sites
    page.add_init_script("window.heard = []; addEventListener('message', ({ data }) => heard.push(data))")
    chat = opened(page, site)
    say(chat, "effect")
    effect = {"type": "chatkit-postgres.effect", "name": "open_panel", "data": {"panel": "orders", "id": 4711}}
    wait_until(page, lambda: effect in page.evaluate("heard"))
    assert server.base_url


def test_a_token_that_has_expired_is_asked_for_again(page: Page, sites: tuple[Site, Site], server: ChatProcess) -> None:
    site, _ = sites
    site.user, site.seconds = new_user(), -100
    chat = opened(page, site)
    expect(chat.locator("#notices")).to_contain_text(re.compile("sign|token|who you are", re.IGNORECASE))
    site.seconds, before = 600, site.tokens
    say(chat, "say hello")
    assert site.tokens > before
    assert server.base_url


def test_no_other_page_can_show_it(page: Page, sites: tuple[Site, Site], server: ChatProcess) -> None:
    _, other = sites
    page.goto(other.url)
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.get_by_role("button", name="Ask us").click()
    assert "embed" not in page.frames[-1].url
    assert server.base_url


def test_a_page_inside_of_an_allowed_one_is_not_heard(
    page: Page, sites: tuple[Site, Site], server: ChatProcess
) -> None:
    """Of another origin, it can reach the frame beside it, and give it a token of its own user."""
    site, other = sites
    site.user, site.seconds, mallory = new_user(), 600, new_user()
    page.goto(f"{site.url}/slow")
    page.get_by_role("button", name="Ask us").click()
    page.wait_for_function("() => asked === 1")
    add = "const frame = document.createElement('iframe'); frame.src = `${url}/nothing`; document.body.append(frame)"
    with page.expect_event("framenavigated", lambda frame: frame.url.startswith(other.url)) as navigated:
        page.evaluate(f"url => {{ {add} }}", other.url)
    beside = navigated.value
    post = "message => parent.frames[0].postMessage(message, '*')"
    token = {"type": "chatkit-postgres.token", "token": mint(SECRET, mallory, seconds=600)}
    beside.evaluate(post, token)
    page.evaluate("async () => post('token', await (await fetch('/chat-token')).json())")
    chat = page.frame_locator("#chat")
    say(chat, "markdown")
    beside.evaluate(post, {"type": "chatkit-postgres.open", "threadId": None})
    page.wait_for_timeout(300)
    expect(chat.locator(".user_message")).to_have_count(1)
    for user, count in ((site.user, 1), (mallory, 0)):
        client = ChatClient(server.base_url, mint(SECRET, user, seconds=600))
        assert len(client.post("threads.list", limit=5).json()["data"]) == count


def test_a_running_answer_goes_on_after_a_reload(page: Page, sites: tuple[Site, Site], server: ChatProcess) -> None:
    site, _ = sites
    site.user, site.seconds = new_user(), 600
    chat = opened(page, site)
    chat.get_by_label("Message", exact=True).fill("slow")
    chat.get_by_label("Message", exact=True).press("Enter")
    expect(chat.locator(".assistant_message")).not_to_be_empty()
    chat = opened(page, site)
    expect(chat.locator("#stop")).to_be_visible()
    chat.locator("#stop").click()
    expect(chat.locator("#send")).to_be_visible()
    assert server.base_url


def test_messages_of_a_stranger_are_not_rendered(server: ChatProcess) -> None:
    url, token = f"{server.base_url}/embed/markdown", mint(SECRET, new_user(), seconds=600)
    assert http.post(url, json={"text": "a"}).status_code == 401
    answer = http.post(url, json={"text": "a"}, headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"blocks": ["<p>a</p>\n"]}
    long = http.post(url, json={"text": "a" * 40_000}, headers={"Authorization": f"Bearer {token}"})
    assert (long.status_code, long.json()["code"]) == (422, "invalid_request")
    assert http.get(f"{server.base_url}/").status_code == 404
