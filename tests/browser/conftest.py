"""A real Chromium, visitors who notice whatever goes wrong on a page, and the Next.js example as it is built."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    APIResponse,
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)
from sqlalchemy import URL

from tests.conftest import query
from tests.faults.harness import SECRET, new_user
from tests.support.nextjs import NextApp, build
from tests.support.processes import ChatProcess, free_port

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=45_000)

CDN = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
STAND_IN = Path(__file__).parent / "chatkit_stand_in.js"
SLOW = " ".join(["This is a slow answer: stop it, and what you have read of it stays."] * 8)
"""The demo's answer to ``slow``: eleven seconds."""


@contextmanager
def launched(*more: str) -> Iterator[Browser]:
    """``more``: arguments of the browser."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=[*ARGUMENTS, *more])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one module: while its driver runs, this process can run no asynchronous tests."""
    with launched() as browser:
        yield browser


class Visitor:
    """A user in a browser context of their own; collects console messages, errors and requests."""

    def __init__(self, context: BrowserContext, base_url: str, user: str) -> None:
        self.base_url = base_url
        self.user = user
        self.context = context
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """Patterns of console messages that the test expects."""
        self.answered: list[str] = []
        """URLs of other hosts that the test itself responds to."""
        self.requests: list[Request] = []
        context.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - as the driver wants it
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        self.page = context.new_page()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    @property
    def outside(self) -> list[str]:
        """The URLs of requests to other hosts."""
        own = (self.base_url, "data:", "blob:", *self.answered)
        return [request.url for request in self.requests if not request.url.startswith(own)]

    def check(self) -> None:
        assert self.outside == []
        unexpected = [
            complaint
            for complaint in self.complaints
            if not any(re.search(known, complaint) for known in self.expected)
        ]
        assert unexpected == []

    def open_page(self, thread: str = "") -> Page:
        self.page.goto(f"{self.base_url}/{f'#{thread}' if thread else ''}")
        expect(self.page.locator("main:not([aria-busy])")).to_be_attached()
        return self.page

    def send_message(self, text: str) -> None:
        """Sends a message and waits until its turn has ended."""
        self.page.get_by_label("Message", exact=True).fill(text)
        # The Enter of a phone's own keyboard is a new line.
        self.page.locator("#send").click()
        self.wait_for_turn_end(text)

    def wait_for_turn_end(self, text: str | None = None) -> None:
        if text is not None:
            expect(self.page.locator(".user_message").last).to_contain_text(text)
        expect(self.page.locator("#send")).to_be_visible()
        expect(self.page.locator("#items [aria-busy=true]")).to_have_count(0)

    def scroll_to(self, top: int) -> None:
        """Scrolls the messages, and waits until the page has learned of it, which a browser tells it with a frame."""
        self.page.locator("#log").evaluate(
            "(log, top) => { log.scrollTop = top; return new Promise((scrolled) => requestAnimationFrame(scrolled)); }",
            top,
        )

    def choose(self, title: str, entry: str) -> None:
        """Choose an entry of the menu of a conversation."""
        self.page.get_by_role("button", name=f"Options of {title}", exact=True).click()
        self.page.get_by_role("menuitem", name=entry).click()

    def rename(self, title: str, to: str) -> None:
        self.choose(title, "Rename")
        self.page.get_by_role("textbox", name="Title").fill(to)
        self.page.keyboard.press("Enter")

    @property
    def answer(self) -> Any:
        return self.page.locator(".assistant_message").last

    @property
    def thread(self) -> str:
        return self.page.url.partition("#")[2]


def operation(route: Route) -> str:
    return str(json.loads(route.request.post_data or "{}").get("type"))


def wait_until(page: Page, holds: Callable[[], bool], what: str = "it happens") -> None:
    """Waits until a condition holds. The driver handles routes only while it waits for the page."""
    for _ in range(1500):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError(what)


class HeldRequests:
    """Holds back the requests of one operation until ``release()``."""

    def __init__(self, visitor: Visitor, name: str) -> None:
        self._name = name
        self._routes: list[Route] = []
        self._answers: list[tuple[Route, APIResponse]] = []
        self._visitor = visitor
        visitor.page.route("**/api/chatkit", self._take)

    def _take(self, route: Route) -> None:
        if operation(route) == self._name:
            self._routes.append(route)
        else:
            route.continue_()

    def wait(self) -> None:
        wait_until(self._visitor.page, lambda: bool(self._routes), f"somebody asks for {self._name}")

    def answer(self) -> None:
        """Let the server answer; ``deliver`` hands the page what it has answered."""
        self._name = ""
        self._answers = [(route, route.fetch()) for route in self._routes]

    def deliver(self) -> None:
        for route, answer in self._answers:
            route.fulfill(response=answer)
        self._visitor.page.unroute("**/api/chatkit")

    def release(self) -> None:
        for route in self._routes:
            route.continue_()
        self._visitor.page.unroute("**/api/chatkit")
        self._visitor.page.wait_for_load_state("networkidle")


OpenPage = Callable[..., Visitor]


def page_opener(chromium: Browser, server: ChatProcess, base_url: str | None = None) -> Iterator[OpenPage]:
    """For a fixture: ``open_page()`` opens the page as a new user; its keywords are those of a browser context."""
    made: list[Visitor] = []
    address = base_url or server.base_url

    def begin(user: str | None = None, **options: Any) -> Visitor:
        # What moves is caught in the middle of it, and drawn sixty times a second without a graphics card.
        usual = {"viewport": {"width": 1200, "height": 860}, "reduced_motion": "reduce"}
        context = chromium.new_context(**{**usual, **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        name = user or new_user()
        context.add_init_script(f"if (location.protocol === 'http:') localStorage.user ??= {name!r}")
        visitor = Visitor(context, address, name)
        made.append(visitor)
        visitor.open_page()
        return visitor

    yield begin
    for visitor in made:
        visitor.check()
        visitor.context.close()


@pytest.fixture
def open_page(chromium: Browser, demo: ChatProcess) -> Iterator[OpenPage]:
    yield from page_opener(chromium, demo)


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    chosen = request.config.getoption("--pictures")
    directory = Path(chosen) if chosen else tmp_path
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, shared_database: URL, app_port: int) -> Iterator[ChatProcess]:
    server = ChatProcess(
        tmp_path_factory.mktemp("backend"),
        DATABASE_URL=shared_database.render_as_string(hide_password=False),
        CHAT_JWT_SECRET=SECRET,
        CHAT_PUBLIC_URL=f"http://127.0.0.1:{app_port}",
        CHAT_ALLOWED_MODELS="demo,large",
        CHAT_ALLOWED_TOOLS="current_time",
        CHAT_MAX_ATTACHMENTS_PER_MESSAGE="4",
        CHAT_ASSISTANT_NAME="Harbour office",
    )
    yield server.wait_until_ready()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def app_port() -> int:
    # Not long before it is used: many others look for free ones.
    build()
    return free_port()


@pytest.fixture(scope="module")
def app(backend: ChatProcess, app_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextApp]:
    started = NextApp(app_port, backend.base_url, SECRET, tmp_path_factory.mktemp("next") / "next.log")
    yield started
    started.stop()


SignIn = Callable[..., Visitor]


@pytest.fixture
def sign_in(chromium: Browser, app: NextApp, shared_database: URL) -> Iterator[SignIn]:
    """``sign_in("Ada")`` is a browser in which Ada is signed in. Both demo users begin with nothing."""
    for table in ("sessions", "turns", "attachments"):
        _forget(shared_database, table)
    made: list[Visitor] = []

    def begin(name: str, base_url: str = app.base_url) -> Visitor:
        visitor = Visitor(chromium.new_context(), base_url, name)
        visitor.answered = [CDN]
        visitor.page.route(CDN, lambda route: route.fulfill(path=STAND_IN, content_type="text/javascript"))
        visitor.page.goto(base_url)
        visitor.page.get_by_role("button", name=name).click()
        expect(visitor.page.get_by_label("Say")).to_be_visible()
        made.append(visitor)
        return visitor

    yield begin
    for visitor in made:
        visitor.check()
        visitor.context.close()


def _forget(database: URL, table: str) -> None:
    query(database, f"DELETE FROM chat_{table} WHERE user_id IN ('ada', 'grace') RETURNING 1")


def send_message(page: Page, text: str) -> None:
    page.get_by_label("Say").fill(text)
    page.get_by_role("button", name="Send").click()


def turns(database: URL, user: str) -> list[str]:
    found = query(database, f"SELECT state FROM chat_turns WHERE user_id = '{user}' ORDER BY started_at")
    return [row["state"] for row in found]
