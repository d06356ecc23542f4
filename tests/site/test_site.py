"""The documentation as `make docs` has built it: it reads in order, and asks no other host for anything."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import launched
from tests.support.web_site import files_of

FIRST = [
    *("index.html", "quick-start.html", "playground.html", "how-it-works.html", "repository.html"),
    *("leaving-hosted-chatkit.html", "assistants.html", "tools.html"),
]


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--site")).resolve()


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with files_of(site) as origin:
        yield f"{origin}/"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with launched() as browser:
        yield browser.new_page()


def test_every_page_opens_and_asks_no_other_host(site: Path, url: str, page: Page) -> None:
    asked, complaints = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for path in pages:
        page.goto(url + path.relative_to(site).as_posix())
        assert page.locator("h1").count() == 1, path
        # A table or a block that was not understood is left as its text.
        assert not re.search(r"^(\|[- |]+\||```)", page.locator("article").inner_text(), re.MULTILINE), path
    assert [each for each in asked if not each.startswith((url, "data:", "blob:"))] == []
    assert complaints == []


def test_it_reads_in_order(url: str, page: Page) -> None:
    page.goto(url)
    for wanted in FIRST:
        assert page.url.removeprefix(url) in (wanted, "" if wanted == "index.html" else wanted)
        page.locator(".md-footer__link--next").click()
        page.wait_for_load_state()


def test_what_is_searched_for_is_found(url: str, page: Page) -> None:
    page.goto(url)
    page.get_by_role("textbox", name="Search").fill("idempotency_key_reused")
    expect(page.locator(".md-search-result__link").first).to_have_attribute("href", re.compile(r"errors\.html"))
