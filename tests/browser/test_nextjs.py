"""The Next.js example, built for production, in front of a real server: what its users and their browsers see."""

import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Error, Page, Response, expect
from sqlalchemy import URL

from tests.browser.conftest import Visitor
from tests.conftest import query
from tests.faults.harness import SECRET
from tests.support.files import picture
from tests.support.nextjs import NextApp, Wire, build
from tests.support.processes import ChatProcess, eventually, free_port

CDN = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
STAND_IN = Path(__file__).parent / "chatkit_stand_in.js"
SLOW = " ".join(["This is a slow answer: stop it, and what you have read of it stays."] * 8)
SLOW_GAP_MS = 100
"""Between two words of the demo's slow answer."""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, shared_database: URL, app_port: int) -> Iterator[ChatProcess]:
    server = ChatProcess(
        tmp_path_factory.mktemp("backend"),
        DATABASE_URL=shared_database.render_as_string(hide_password=False),
        CHAT_JWT_SECRET=SECRET,
        CHAT_PUBLIC_URL=f"http://127.0.0.1:{app_port}",
    )
    yield server.wait_until_ready()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def app_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def app(
    chromium: Browser, backend: ChatProcess, app_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NextApp]:
    # The browser is asked for first: without one nothing need be built.
    build()
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


def say(page: Page, text: str) -> None:
    page.get_by_label("Say").fill(text)
    page.get_by_role("button", name="Send").click()


def turns(database: URL, user: str) -> list[str]:
    found = query(database, f"SELECT state FROM chat_turns WHERE user_id = '{user}' ORDER BY started_at")
    return [row["state"] for row in found]


def stored(database: URL, user: str, kind: str) -> list[str]:
    rows = query(
        database,
        f"SELECT content FROM chat_messages WHERE user_id = '{user}' AND item_type = '{kind}' ORDER BY position",
    )
    return [row["content"] for row in rows]


def test_a_user_signs_in_and_chats_and_a_reload_shows_the_conversation(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    expect(ada.page.locator("header")).to_contain_text("Ada")
    say(ada.page, "Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")
    assert re.search(r"\?thread=thr_\w+$", ada.page.url)
    ada.page.reload()
    expect(ada.page.locator(".user_message")).to_have_text("Hello there")
    expect(ada.page.locator(".assistant_message")).to_contain_text("This is message number 1 of yours")


def test_stop_reaches_the_backend_and_a_reload_shows_what_was_read(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    say(ada.page, "slow")
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


def test_a_reload_in_the_middle_of_an_answer_ends_it_and_keeps_what_was_read(
    sign_in: SignIn, shared_database: URL
) -> None:
    ada = sign_in("Ada")
    say(ada.page, "slow")
    answer = ada.page.locator(".assistant_message")
    expect(answer).to_contain_text("This is a slow")
    seen = answer.inner_text().strip()
    ada.page.reload()
    eventually(lambda: turns(shared_database, "ada") == ["stopped"], 15, "the turn is stopped")
    expect(answer).to_contain_text(seen)
    expect(ada.page.locator(".user_message")).to_have_text("slow")


def test_a_second_user_sees_nothing(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    say(ada.page, "A secret")
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
    file.write_bytes(picture())
    ada.page.get_by_label("File", exact=True).set_input_files(file)
    preview = ada.page.get_by_role("list", name="Files").get_by_alt_text("tree.png")
    eventually(lambda: preview.count() == 1 and preview.evaluate("image => image.naturalWidth") > 0)
    say(ada.page, "Look")
    sent = ada.page.locator(".user_message").get_by_alt_text("tree.png")
    eventually(lambda: sent.count() == 1 and sent.evaluate("image => image.naturalWidth") > 0)
    expect(ada.page.locator(".assistant_message")).to_contain_text("You said")
    ada.page.reload()
    eventually(lambda: sent.count() == 1 and sent.evaluate("image => image.naturalWidth") > 0)
    # All of it through the app's own address.
    assert ada.outside == []


def test_large_files_pass_whole(app: NextApp) -> None:
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as ada:
        assert ada.post("/api/session", data={"user": "ada"}).status_code == 303
        text = b"large\n" * 2_500_000
        given = ada.post("/api/attachments", files={"file": ("large.txt", text, "text/plain")})
        assert given.status_code == 200, given.text
        described = ada.get(f"/api/attachments/{given.json()['id']}").json()
        read = httpx2.get(described["download_url"], timeout=60)
        assert read.content == text
        assert read.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in read.headers["content-security-policy"]


def test_no_token_is_ever_visible_to_the_page(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    bodies: list[str] = []
    ada.page.on("response", lambda response: bodies.append(_told(response)))
    say(ada.page, "Hello")
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


def _told(response: Response) -> str:
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
    )
    assert answer.status_code == 401


def test_the_stream_is_not_buffered(sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    say(ada.page, "slow")
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
    ada.expected = ["net::ERR", "This answer was stopped before its end."]
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
    say(ada.page, "Only once")
    eventually(lambda: wire.cuts == 1, what="the connection is cut")
    expect(ada.page.locator(".assistant_message")).to_contain_text("built-in")
    expect(ada.page.get_by_role("alert").filter(has_text="This answer was stopped before its end.")).to_be_visible()
    assert len(posts) == 2
    assert posts[0] == posts[1] is not None
    eventually(lambda: "running" not in turns(shared_database, "ada"))
    assert stored(shared_database, "ada", "user_message") == ["Only once"]
    assert len(stored(shared_database, "ada", "assistant_message")) == 1
    assert len(turns(shared_database, "ada")) == 1
    # Said again on purpose, it is another message.
    say(ada.page, "Only once")
    expect(ada.page.locator(".assistant_message").last).to_contain_text("message number 2 of yours")
    assert stored(shared_database, "ada", "user_message") == ["Only once"] * 2
    wire.close()


def test_the_same_words_after_a_stop_are_another_message(sign_in: SignIn, shared_database: URL) -> None:
    ada = sign_in("Ada")
    say(ada.page, "task")
    expect(ada.page.locator(".user_message")).to_have_count(1)
    for count in (2, 3):
        say(ada.page, "slow")
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
    expect(ada.page.get_by_role("button", name="Sign out")).to_be_visible()
    missing = ada.page.get_by_role("alert").filter(has_text="The chat could not be loaded.")
    ada.page.clock.run_for(1_000)
    expect(missing).to_be_hidden()
    # The clock of the page, from whenever its scripts have begun.
    for _ in range(20):
        ada.page.clock.run_for(3_000)
        if missing.is_visible():
            return
    raise AssertionError("the page waits for ever")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "SELF"}, 403, "origin_not_allowed"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "origin_not_allowed"),
        ({}, 403, "origin_not_allowed"),
        ({"Origin": "SELF"}, 200, None),
        ({"Sec-Fetch-Site": "same-origin"}, 200, None),
    ],
)
@pytest.mark.parametrize("path", ["/api/chatkit", "/api/session", "/api/attachments"])
def test_other_sites_cannot_use_the_cookie(
    app: NextApp, headers: dict[str, str], status: int, code: str | None, path: str
) -> None:
    own = {name: app.base_url if value == "SELF" else value for name, value in headers.items()}
    with httpx2.Client(base_url=app.base_url) as client:
        assert client.post("/api/session", data={"user": "ada"}, headers={"Origin": app.base_url}).status_code == 303
        if path == "/api/session":
            answer = client.post(path, data={"user": "ada"}, headers=own)
        else:
            answer = client.post(path, json={"type": "threads.list", "params": {}}, headers=own)
        if code is not None:
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        else:
            # Allowed by the app; what the backend says of it is another matter.
            assert answer.status_code in (200, 303, 415, 422)


def test_links_to_files_work_from_another_origin(app: NextApp) -> None:
    frame = {"Origin": "https://cdn.platform.openai.com"}
    with httpx2.Client(base_url=app.base_url, headers={"Origin": app.base_url}) as ada:
        ada.post("/api/session", data={"user": "ada"})
        params = {"name": "a.txt", "size": 5, "mime_type": "text/plain"}
        announced = ada.post("/api/chatkit", json={"type": "attachments.create", "params": params}).json()
        upload = announced["upload_descriptor"]
        asked = httpx2.options(
            upload["url"], headers=frame | {"Access-Control-Request-Headers": "content-type, x-request-id"}
        )
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
        assert "x-request-id" in asked.headers["access-control-allow-headers"]
        wrong = httpx2.request(upload["method"], upload["url"], content=b"four", headers=frame)
        assert wrong.status_code == 422
        stored = httpx2.request(upload["method"], upload["url"], content=b"12345", headers=frame)
        for answer in (wrong, stored):
            # A page may only read what it is allowed to, errors included.
            assert answer.headers["access-control-allow-origin"] == "*"
        described = ada.get(f"/api/attachments/{announced['id']}")
        assert "access-control-allow-origin" not in described.headers
        read = httpx2.get(described.json()["download_url"], headers=frame)
        assert (read.content, read.headers["access-control-allow-origin"]) == (b"12345", "*")


def test_the_demos_sign_in_answers_on_this_machine_only(app: NextApp) -> None:
    # As from a page that points a name of its own at us.
    elsewhere = {"Host": f"evil.example:{app.port}", "Origin": f"http://evil.example:{app.port}"}
    answer = httpx2.post(f"{app.base_url}/api/session", json={"user": "ada"}, headers=elsewhere)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"user=root", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
        (b'{"user": "ada"}', "application/json"),
        (b"--x", "multipart/form-data; boundary=x"),
    ],
)
def test_a_sign_in_that_is_none_is_refused(app: NextApp, body: bytes, content_type: str) -> None:
    headers = {"Origin": app.base_url, "Content-Type": content_type}
    answer = httpx2.post(f"{app.base_url}/api/session", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "path", ["/api/attachments/%2e%2e/usage", "/api/attachments/a/b", "/api/attachments/..%2fusage"]
)
def test_nothing_else_of_the_backend_is_reached(app: NextApp, path: str) -> None:
    with httpx2.Client(base_url=app.base_url, headers={"Origin": app.base_url}) as ada:
        ada.post("/api/session", data={"user": "ada"})
        assert ada.get(path).status_code in (404, 422)


def test_errors_come_through_as_they_are(app: NextApp) -> None:
    with httpx2.Client(base_url=app.base_url, headers={"Origin": app.base_url}) as client:
        unknown = client.post("/api/chatkit", json={"type": "threads.list", "params": {}})
        assert (unknown.status_code, unknown.json()["code"]) == (401, "unauthorized")
        client.post("/api/session", data={"user": "ada"})
        client.headers["Authorization"] = "Bearer of.somebody.else"
        absent = client.post("/api/chatkit", json={"type": "items.list", "params": {"thread_id": "thr_nowhere"}})
        assert (absent.status_code, absent.json()["code"]) == (404, "not_found")
        assert absent.headers["x-request-id"] == absent.json()["request_id"]
        bad = client.post("/api/chatkit", content=b"{", headers={"Content-Type": "application/json"})
        assert (bad.status_code, bad.json()["code"]) == (400, "bad_request")
        large = client.post("/api/chatkit", content=b"x" * 300_000, headers={"Content-Type": "application/json"})
        assert large.status_code == 413


def test_headers_of_a_stream_keep_it_a_stream(app: NextApp) -> None:
    with httpx2.Client(base_url=app.base_url, headers={"Origin": app.base_url}) as client:
        client.post("/api/session", data={"user": "grace"})
        said = {"content": [{"type": "input_text", "text": "task"}], "attachments": [], "inference_options": {}}
        body = {"type": "threads.create", "params": {"input": said}}
        with client.stream("POST", "/api/chatkit", json=body, headers={"Accept-Encoding": "gzip"}) as answer:
            answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        for name in ("content-encoding", "content-length", "set-cookie", "server"):
            assert name not in answer.headers


def test_a_backend_that_is_away_is_an_error_of_the_usual_shape(chromium: Browser, app: NextApp, tmp_path: Path) -> None:
    alone = NextApp(free_port(), f"http://127.0.0.1:{free_port()}", SECRET, tmp_path / "next.log")
    with httpx2.Client(base_url=alone.base_url, headers={"Origin": alone.base_url}) as client:
        client.post("/api/session", data={"user": "ada"})
        answer = client.post("/api/chatkit", json={"type": "threads.list", "params": {}})
        assert answer.status_code == 503
        assert set(answer.json()) == {"code", "message", "request_id"}
    alone.stop()
