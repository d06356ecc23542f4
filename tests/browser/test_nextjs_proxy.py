"""What the Next.js example lets through, in front of a server that sends what ours never would."""

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx2
import pytest
from jose import jwt

from tests.faults.harness import SECRET
from tests.support.nextjs import NextApp, build
from tests.support.processes import eventually, free_port

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)

UNWANTED = {
    "Set-Cookie": "session=of-the-backend",
    "Server": "secret/1.0",
    "X-Powered-By": "a secret",
    "Authorization": "Bearer of-the-backend",
    "Access-Control-Allow-Origin": "*",
    "Strict-Transport-Security": "max-age=1",
    "Content-Encoding": "gzip",
}


class Upstream(BaseHTTPRequestHandler):
    """Answers as the request's body says: ``{"status", "headers", "hang"}``."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, str]]] = []
    left: ClassVar[list[bool]] = []

    def do_POST(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("hang"):
            # Nothing more comes on this connection until its other end is closed.
            self.left.append(self.rfile.read(1) == b"")
            self.close_connection = True
            return
        body = json.dumps({"code": "busy", "message": "as the script says", "request_id": "1"}).encode()
        headers = {"Content-Type": "application/json"} | asked.get("headers", {})
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.compress(body)
        self.send_response_only(asked.get("status", 200))
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextApp]:
    build()
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{upstream.server_address[1]}"
    started = NextApp(free_port(), address, SECRET, tmp_path_factory.mktemp("next") / "next.log")
    yield started
    started.stop()
    upstream.shutdown()
    upstream.server_close()


@pytest.fixture
def ada(app: NextApp) -> Iterator[httpx2.Client]:
    Upstream.seen.clear()
    with httpx2.Client(base_url=app.base_url, timeout=60, headers={"Origin": app.base_url}) as client:
        assert client.post("/api/session", data={"user": "ada"}).status_code == 303
        yield client


def test_only_headers_that_are_listed_come_back(ada: httpx2.Client) -> None:
    wanted = {"X-Request-Id": "abc", "Retry-After": "7", "X-Content-Type-Options": "nosniff"}
    answer = ada.post("/api/chatkit", json={"headers": UNWANTED | wanted})
    assert answer.json()["code"] == "busy"
    for name in UNWANTED:
        assert name not in answer.headers, name
    for name, value in wanted.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == "no-store"


def test_only_headers_that_are_listed_go_on_and_the_token_is_ours(ada: httpx2.Client, app: NextApp) -> None:
    theirs = {
        "Authorization": "Bearer of-the-client",
        "X-User-Id": "root",
        "X-Forwarded-For": "10.0.0.1",
        "Accept-Language": "de",
        "Idempotency-Key": "one",
        "Chat-On-Disconnect": "finish",
        "Accept-Encoding": "gzip, br",
    }
    ada.post("/api/chatkit", json={}, headers=theirs)
    (seen,) = Upstream.seen
    claims = jwt.decode(seen.pop("authorization").removeprefix("Bearer "), SECRET, algorithms=["HS256"])
    assert claims["sub"] == "ada"
    assert claims["exp"] - claims["iat"] <= 600
    assert seen.pop("host") != f"127.0.0.1:{app.port}"
    wanted = {
        "accept-language": "de",
        "idempotency-key": "one",
        "chat-on-disconnect": "finish",
        "accept-encoding": "identity",
    }
    assert {name: seen[name] for name in wanted} == wanted
    # What node's own fetch says of itself and of the connection.
    usual = {"connection", "user-agent", "sec-fetch-mode", "transfer-encoding", "accept", "content-type"}
    usual |= {"cache-control", "pragma"}
    assert set(seen) - usual == {*wanted, "content-length"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503])
def test_an_error_keeps_its_status_and_its_words(ada: httpx2.Client, status: int) -> None:
    answer = ada.post("/api/chatkit", json={"status": status, "headers": {"Retry-After": "3"}})
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "3")
    assert answer.json() == {"code": "busy", "message": "as the script says", "request_id": "1"}


def test_a_redirect_is_not_followed_with_the_users_token(ada: httpx2.Client) -> None:
    answer = ada.post("/api/chatkit", json={"status": 307, "headers": {"Location": "https://elsewhere.example/"}})
    assert answer.status_code == 307
    assert len(Upstream.seen) == 1


def test_who_leaves_before_the_answer_began_is_gone_for_the_backend(ada: httpx2.Client, app: NextApp) -> None:
    Upstream.left.clear()
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in ada.cookies.jar)
    leaving = http.client.HTTPConnection("127.0.0.1", app.port)
    headers = {"Content-Type": "application/json", "Cookie": cookies, "Origin": app.base_url}
    leaving.request("POST", "/api/chatkit", json.dumps({"hang": True}), headers)
    eventually(lambda: len(Upstream.seen) == 1, what="the backend is asked")
    assert Upstream.left == []
    leaving.close()
    eventually(lambda: Upstream.left == [True], 10, "the backend's connection is closed")
