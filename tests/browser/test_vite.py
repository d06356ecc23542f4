"""The example with Vite and React, built for production, in front of a real server. What it shares with the Next.js
example is tested there; here, that each part of it works in this app, too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import URL

from tests.browser.conftest import CDN, SLOW, STAND_IN, Visitor, send_message, turns
from tests.conftest import query
from tests.faults.harness import SECRET
from tests.support.accessibility import violations
from tests.support.files import image_bytes
from tests.support.processes import ChatProcess, eventually, free_port
from tests.support.vite import ViteApp, build

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, shared_database: URL) -> Iterator[ViteApp]:
    build()
    directory, port = tmp_path_factory.mktemp("vite"), free_port()
    server = ChatProcess(
        directory,
        DATABASE_URL=shared_database.render_as_string(hide_password=False),
        CHAT_JWT_SECRET=SECRET,
        CHAT_PUBLIC_URL=f"http://127.0.0.1:{port}",
        CHAT_ALLOWED_MODELS="demo,large",
        CHAT_ASSISTANT_NAME="Harbour office",
    ).wait_until_ready()
    started = ViteApp(port, server.base_url, SECRET, directory / "vite.log")
    yield started
    started.stop()
    assert server.stop() == 0


@pytest.fixture
def ada(chromium: Browser, app: ViteApp, shared_database: URL) -> Iterator[Visitor]:
    for table in ("sessions", "turns", "attachments"):
        query(shared_database, f"DELETE FROM chat_{table} WHERE user_id IN ('ada', 'grace') RETURNING 1")
    visitor = Visitor(chromium.new_context(), app.base_url, "Ada")
    visitor.answered = [CDN]
    visitor.page.route(CDN, lambda route: route.fulfill(path=STAND_IN, content_type="text/javascript"))
    visitor.page.goto(app.base_url)
    become(visitor.page, "Ada")
    yield visitor
    visitor.check()
    visitor.context.close()


def become(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()
    expect(page.get_by_label("Say")).to_be_visible()


def test_a_user_signs_in_and_chats_and_a_reload_shows_the_conversation(ada: Visitor) -> None:
    send_message(ada.page, "Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    assert "?thread=thr_" in ada.page.url
    ada.page.reload()
    expect(ada.page.locator(".user_message")).to_have_text("Hello there")
    ada.page.get_by_role("button", name="Sign out").click()
    become(ada.page, "Grace")
    assert "Hello there" not in ada.page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(ada: Visitor, scheme: Any) -> None:
    page = ada.page
    page.emulate_media(color_scheme=scheme)
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # The component is the tests' stand-in.
        assert violations(page, without="openai-chatkit") == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Grace")).to_be_visible()
    assert violations(page) == []


def test_what_the_server_allows_reaches_the_component(ada: Visitor) -> None:
    expect(ada.page.get_by_role("heading", name="Harbour office")).to_be_visible()
    options = ada.page.evaluate("JSON.parse(JSON.stringify(document.querySelector('openai-chatkit').options))")
    assert [model["id"] for model in options["composer"]["models"]] == ["demo", "large"]
    assert options["header"]["title"]["text"] == options["frameTitle"] == "Harbour office"


def test_a_server_that_transcribes_offers_dictation(ada: Visitor) -> None:
    config = ada.page.evaluate("fetch('/api/client-config').then((answer) => answer.json())")
    assert config["composer"]["dictation"] == {"enabled": False}
    config["composer"]["dictation"]["enabled"] = True
    ada.page.route("**/api/client-config", lambda route: route.fulfill(json=config))
    ada.page.reload()
    expect(ada.page.get_by_label("Say")).to_be_visible()
    dictation = ada.page.evaluate("document.querySelector('openai-chatkit').options.composer.dictation")
    assert dictation == {"enabled": True}


def test_an_answer_goes_on_after_a_reload_and_stop_ends_it(ada: Visitor, shared_database: URL) -> None:
    send_message(ada.page, "slow")
    answer = ada.page.locator(".assistant_message")
    expect(answer).to_contain_text("This is a slow")
    seen = answer.inner_text().strip()
    ada.page.reload()
    expect(answer).to_contain_text(seen)
    words = len(seen)
    eventually(lambda: words < len(answer.inner_text()) < len(SLOW))
    ada.page.get_by_role("button", name="Stop answering").click()
    expect(ada.page.get_by_text("The assistant is still answering.")).to_have_count(0)
    assert turns(shared_database, "ada") == ["stopped"]


def test_a_session_that_has_ended_leads_to_the_sign_in(ada: Visitor) -> None:
    ada.expected = ["401", "Please sign in"]
    ada.context.clear_cookies()
    send_message(ada.page, "Hello there")
    expect(ada.page.get_by_text("Your session has ended.")).to_be_visible()
    ada.page.get_by_role("button", name="Sign in").click()
    expect(ada.page.get_by_role("heading", name="Who are you?")).to_be_visible()


def test_a_file_is_uploaded_shown_and_sent(ada: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "tree.png"
    file.write_bytes(image_bytes())
    ada.page.get_by_label("File", exact=True).set_input_files(file)
    preview = ada.page.get_by_role("list", name="Files").get_by_alt_text("tree.png")
    eventually(lambda: preview.count() == 1 and preview.evaluate("image => image.naturalWidth") > 0)
    send_message(ada.page, "Look")
    expect(ada.page.locator(".assistant_message")).to_contain_text("You said")
    assert ada.outside == []


def test_other_sites_and_other_paths_reach_nothing(app: ViteApp) -> None:
    own = {"Origin": app.base_url}
    with httpx2.Client(base_url=app.base_url, timeout=60) as client:
        assert client.post("/session", data={"user": "ada"}).status_code == 403
        assert (
            client.post("/session", data={"user": "ada"}, headers={"Origin": "http://evil.example"}).status_code == 403
        )
        assert client.post("/session", data={"user": "mallory"}, headers=own).status_code == 422
        assert client.post("/session", data={"user": "ada"}, headers=own).status_code == 204
        listing = {"type": "threads.list", "params": {}}
        assert client.post("/api/chatkit", json=listing, headers=own).status_code == 200
        assert client.post("/api/chatkit", json=listing).status_code == 403
        for path in ("/api/usage", "/api/export", "/api/staff/users/grace/threads", "/api/../metrics"):
            assert client.get(path, headers=own).status_code == 404
        assert client.post("/api/session", headers=own).status_code == 404
        page = client.get("/")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        # The demo's sign-in is for this machine, under a name of this machine.
        assert client.post("/session", data={"user": "ada"}, headers={"Host": "evil.example"} | own).status_code == 403
