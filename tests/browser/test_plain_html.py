"""The page without a build: it talks to the server itself, from another origin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.browser.conftest import CDN, STAND_IN, Visitor, send_message
from tests.faults.harness import SECRET, new_user
from tests.support.accessibility import violations
from tests.support.processes import ROOT, ChatProcess
from tests.support.web_site import files_of


@pytest.fixture
def visitor(chromium: Browser, shared_database: URL, tmp_path: Path) -> Iterator[Visitor]:
    pages = tmp_path / "pages"
    pages.mkdir()
    with files_of(pages) as site:
        server = ChatProcess(
            tmp_path,
            DATABASE_URL=shared_database.render_as_string(hide_password=False),
            CHAT_JWT_SECRET=SECRET,
            CHAT_CORS_ORIGINS=site,
        ).wait_until_ready()
        page = (ROOT / "examples" / "plain-html" / "index.html").read_text()
        (pages / "index.html").write_text(page.replace("http://localhost:8000", server.base_url))
        made = Visitor(chromium.new_context(), site, new_user())
        made.answered = [CDN, server.base_url]
        made.page.route(CDN, lambda route: route.fulfill(path=STAND_IN, content_type="text/javascript"))
        token = mint(SECRET, made.user, seconds=600)
        made.page.goto(f"{site}/#token={token}")
        yield made
        made.check()
        made.context.close()
        assert server.stop() == 0


def test_it_chats_and_a_reload_shows_the_conversation(visitor: Visitor) -> None:
    send_message(visitor.page, "Hello there")
    expect(visitor.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    # The token is no longer in the address.
    assert "token" not in visitor.page.url
    visitor.page.reload()
    expect(visitor.page.locator(".user_message")).to_have_text("Hello there")
    options = visitor.page.evaluate("JSON.parse(JSON.stringify(document.querySelector('openai-chatkit').options))")
    assert options["composer"]["attachments"]["enabled"] is True
    assert violations(visitor.page, without="openai-chatkit") == []


def test_without_a_token_it_says_so(visitor: Visitor) -> None:
    visitor.expected = ["401"]
    visitor.page.goto("about:blank")
    visitor.page.goto(f"{visitor.base_url}/#token=x")
    expect(visitor.page.get_by_role("alert").first).to_contain_text("cannot be asked")
