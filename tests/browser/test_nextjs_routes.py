"""The routes of the Next.js example, built for production, in front of a real server; no browser needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.faults.harness import SECRET
from tests.support.nextjs import NextApp
from tests.support.processes import free_port, message, parse_events, thread_id_of

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)


@contextmanager
def signed_in(app: NextApp, user: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as client:
        assert client.post("/api/session", data={"user": user}).status_code == 303
        yield client


@pytest.fixture
def ada(app: NextApp) -> Iterator[httpx2.Client]:
    with signed_in(app, "ada") as client:
        yield client


@pytest.fixture
def thread(ada: httpx2.Client) -> str:
    """Of Ada; no turn is running."""
    body = {"type": "threads.create", "params": {"input": message("task")}}
    return thread_id_of(parse_events(ada.post("/api/chatkit", json=body).text))


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
    with httpx2.Client(base_url=app.base_url, timeout=60) as client:
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
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as ada:
        ada.post("/api/session", data={"user": "ada"})
        params = {"name": "a.txt", "size": 5, "mime_type": "text/plain"}
        announced = ada.post("/api/chatkit", json={"type": "attachments.create", "params": params}).json()
        upload = announced["upload_descriptor"]
        asked = httpx2.options(
            upload["url"], headers=frame | {"Access-Control-Request-Headers": "content-type, x-request-id"}
        )
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
        assert "x-request-id" in asked.headers["access-control-allow-headers"]
        wrong = httpx2.request(upload["method"], upload["url"], content=b"four", headers=frame, timeout=60)
        assert wrong.status_code == 422
        stored = httpx2.request(upload["method"], upload["url"], content=b"12345", headers=frame, timeout=60)
        for answer in (wrong, stored):
            # A page may only read what it is allowed to, errors included.
            assert answer.headers["access-control-allow-origin"] == "*"
        described = ada.get(f"/api/attachments/{announced['id']}")
        assert "access-control-allow-origin" not in described.headers
        read = httpx2.get(described.json()["download_url"], headers=frame, timeout=60)
        assert (read.content, read.headers["access-control-allow-origin"]) == (b"12345", "*")


def test_the_demos_sign_in_answers_on_this_machine_only(app: NextApp) -> None:
    # As from a page that points a name of its own at us.
    elsewhere = {"Host": f"evil.example:{app.port}", "Origin": f"http://evil.example:{app.port}"}
    answer = httpx2.post(f"{app.base_url}/api/session", json={"user": "ada"}, headers=elsewhere, timeout=60)
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
    answer = httpx2.post(f"{app.base_url}/api/session", content=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "path",
    [
        "/api/attachments/%2e%2e/usage",
        "/api/attachments/a/b",
        "/api/attachments/..%2fusage",
        "/api/threads",
        "/api/threads/a",
        "/api/threads/a/other",
        "/api/threads/a/live/b",
        "/api/threads/..%2fusage/live",
        "/api/threads/%2e%2e/live",
    ],
)
def test_nothing_else_of_the_backend_is_reached(app: NextApp, path: str) -> None:
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as ada:
        ada.post("/api/session", data={"user": "ada"})
        assert ada.get(path).status_code in (404, 422)


def test_errors_come_through_as_they_are(app: NextApp) -> None:
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as client:
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
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as client:
        client.post("/api/session", data={"user": "grace"})
        user_message = {"content": [{"type": "input_text", "text": "task"}], "attachments": [], "inference_options": {}}
        body = {"type": "threads.create", "params": {"input": user_message}}
        with client.stream("POST", "/api/chatkit", json=body, headers={"Accept-Encoding": "gzip"}) as answer:
            answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        for name in ("content-encoding", "content-length", "set-cookie", "server"):
            assert name not in answer.headers


def test_a_thread_at_rest_has_nothing_to_follow_or_stop(ada: httpx2.Client, thread: str) -> None:
    live, stop = ada.get(f"/api/threads/{thread}/live"), ada.post(f"/api/threads/{thread}/stop")
    assert (live.status_code, live.content) == (204, b"")
    assert (stop.status_code, stop.json()) == (200, {"stopped": False})


def test_a_turn_outlives_its_reader_and_is_followed_and_stopped(ada: httpx2.Client) -> None:
    body = {"type": "threads.create", "params": {"input": message("slow")}}
    with ada.stream("POST", "/api/chatkit", json=body, headers={"Chat-On-Disconnect": "finish"}) as answer:
        begun = next(answer.iter_text())
    thread = thread_id_of(parse_events(begun))
    with ada.stream("GET", f"/api/threads/{thread}/live", headers={"Accept-Encoding": "gzip"}) as live:
        assert live.headers["content-type"].startswith("text/event-stream")
        assert live.headers["cache-control"] == "no-cache, no-transform"
        assert live.headers["x-accel-buffering"] == "no"
        chunks = live.iter_text()
        received = next(chunks)
        while '"delta"' not in received:
            received += next(chunks)
        assert ada.post(f"/api/threads/{thread}/stop").json() == {"stopped": True}
        types = [event["type"] for event in parse_events(received + "".join(chunks))]
    assert types[0] == "stream_options"
    assert types.count("thread.item.done") == 2
    assert "error" not in types
    assert ada.get(f"/api/threads/{thread}/live").status_code == 204


TURN = pytest.mark.parametrize(("method", "name"), [("GET", "live"), ("POST", "stop")])


@TURN
def test_a_strangers_thread_and_an_absent_one_have_the_same_bytes(
    app: NextApp, thread: str, method: str, name: str
) -> None:
    with signed_in(app, "grace") as grace:
        absent = f"{thread[:-4]}0000"
        answers = [grace.request(method, f"/api/threads/{one}/{name}") for one in (thread, absent)]
    foreign, missing = (answer.content.replace(answer.headers["x-request-id"].encode(), b"") for answer in answers)
    assert [answer.status_code for answer in answers] == [404, 404]
    assert foreign == missing
    assert answers[0].headers.keys() == answers[1].headers.keys()


@TURN
def test_other_sites_and_strangers_reach_no_turn(
    ada: httpx2.Client, app: NextApp, thread: str, method: str, name: str
) -> None:
    path = f"/api/threads/{thread}/{name}"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        other = ada.request(method, path, headers=headers)
        assert (other.status_code, other.json()["code"]) == (403, "origin_not_allowed")
    nobody = httpx2.request(method, f"{app.base_url}{path}", headers={"Origin": app.base_url}, timeout=60)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthorized")


def test_a_backend_that_is_away_is_an_error_of_the_usual_shape(app: NextApp, tmp_path: Path) -> None:
    alone = NextApp(free_port(), f"http://127.0.0.1:{free_port()}", SECRET, tmp_path / "next.log")
    with httpx2.Client(base_url=alone.base_url, timeout=60, headers={"Origin": alone.base_url}) as client:
        client.post("/api/session", data={"user": "ada"})
        answer = client.post("/api/chatkit", json={"type": "threads.list", "params": {}})
        assert answer.status_code == 503
        assert set(answer.json()) == {"code", "message", "request_id"}
    alone.stop()
