"""Who gets in: keys of an issuer, the cookie and its pages, disabled users, every route without a token."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import TokenRules, mint
from chatkit_postgres.main import create_app
from chatkit_postgres.settings import load_settings
from tests.conftest import query
from tests.faults.harness import SECRET, environment, script
from tests.support.forge import Hmac, Rsa, claims, token
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    eventually,
    http,
    message,
    run_cli,
)

PAGE = "https://app.example"
COOKIE = {"CHAT_AUTH_COOKIE": "session", "CHAT_CORS_ORIGINS": PAGE, "CHAT_USER_CLAIMS": "name,email,roles"}
PUBLIC = {"/health/live", "/health/ready", "/metrics"}
# A link is its own permission; without one there is nothing there.
LINKED = {"/api/attachments/{attachment_id}/content", "/api/attachments/{attachment_id}/preview"}
LIST = {"type": "threads.list", "params": {}}


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[list[ChatProcess]]:
    settings = environment(shared_database, model_server) | COOKIE
    servers = [ChatProcess(tmp_path_factory.mktemp(name), **settings) for name in ("first", "second")]
    yield [server.wait_until_ready() for server in servers]
    assert [server.stop() for server in servers] == [0, 0]


@pytest.fixture(scope="module")
def server(replicas: list[ChatProcess]) -> ChatProcess:
    return replicas[0]


class TestCookie:
    def ask(self, server: ChatProcess, headers: dict[str, str], **cookies: str) -> tuple[int, str | None]:
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        answer = http.post(f"{server.base_url}/api/chatkit", json=LIST, headers=headers | cookie)
        return answer.status_code, answer.json().get("code")

    def test_a_page_of_ours_may_use_it(self, server: ChatProcess) -> None:
        session = mint(SECRET, "cookie", seconds=60)
        for page in (
            {"Origin": PAGE},
            {"Sec-Fetch-Site": "same-origin"},
            {"Origin": "https://b", "Sec-Fetch-Site": "same-origin"},
        ):
            assert self.ask(server, page, session=session) == (200, None)

    @pytest.mark.parametrize(
        "page",
        [
            {},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": PAGE + ".evil.example"},
            {"Origin": "http://app.example"},
            {"Origin": PAGE + ":444"},
            {"Origin": "", "Referer": PAGE},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    def test_no_other_page_may(self, server: ChatProcess, page: dict[str, str]) -> None:
        assert self.ask(server, page, session=mint(SECRET, "cookie", seconds=60)) == (403, "foreign_origin")

    def test_it_is_looked_at_as_strictly_as_the_header(self, server: ChatProcess) -> None:
        good, other = (mint(SECRET, name, seconds=60) for name in ("cookie", "other"))
        page, bearer = {"Origin": PAGE}, {"Authorization": f"Bearer {good}"}
        assert self.ask(server, page, session="a.b.c") == (401, "unauthorized")
        assert self.ask(server, page, another=good) == (401, "unauthorized")
        assert self.ask(server, bearer, session=good) == (200, None)
        assert self.ask(server, bearer, session=other) == (401, "unauthorized")
        assert self.ask(server, {"Authorization": "Basic x"} | page, session=good) == (401, "unauthorized")
        twice = f"session={good}; session={other}"
        answer = http.post(f"{server.base_url}/api/chatkit", json=LIST, headers=page | {"Cookie": twice})
        assert answer.status_code == 401

    def test_browsers_of_our_pages_may_send_it(self, server: ChatProcess) -> None:
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        allowed = http.options(f"{server.base_url}/api/chatkit", headers=asked)
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert allowed.headers["access-control-allow-origin"] == PAGE
        refused = http.options(f"{server.base_url}/api/chatkit", headers=asked | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers

    def test_it_is_nothing_where_it_is_not_configured(self, demo: ChatProcess) -> None:
        session = http.post(f"{demo.base_url}/dev/token", json={"user": "a"}).json()["token"]
        assert self.ask(demo, {"Origin": "http://localhost:3000"}, session=session) == (401, "unauthorized")


def test_every_route_but_the_public_ones_wants_a_token(
    server: ChatProcess, shared_database: URL, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(shared_database, model_server).items():
        monkeypatch.setenv(name, value)
    routes = list(_routes(create_app(load_settings())))
    assert {route.path for route in routes} >= PUBLIC | {"/api/chatkit"}
    for route in routes:
        if route.path not in PUBLIC:
            for method in route.methods or set():
                answer = http.request(method, server.base_url + route.path.replace("{", "x").replace("}", ""))
                expected = (404, "not_found") if route.path in LINKED else (401, "unauthorized")
                assert (answer.status_code, answer.json()["code"]) == expected, route.path


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    for included in app.routes:
        # FastAPI keeps a router that was included as it is.
        for route in getattr(included, "original_router", app).routes:
            assert isinstance(route, APIRoute), f"a route this test knows nothing of: {route}"
            yield route


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/playground/app.js", "/dev/token"])
def test_outside_development_there_is_no_page_and_no_documentation(server: ChatProcess, path: str) -> None:
    for method in ("GET", "POST"):
        answer = http.request(method, server.base_url + path, json={"user": "alice"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_every_answer_tells_browsers_to_be_careful(server: ChatProcess, demo: ChatProcess) -> None:
    client = demo.client("careful")
    answers = [
        http.get(f"{server.base_url}{path}") for path in ("/health/live", "/nowhere", "/metrics", "/api/chatkit")
    ]
    answers += [
        http.get(demo.base_url),
        client.post("threads.list"),
        client.post("threads.create", input=message("Hi")),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    assert "script-src 'self'" in http.get(demo.base_url).headers["content-security-policy"]


class TestDisabledUsers:
    def run(self, database: URL, *arguments: str) -> "subprocess.CompletedProcess[str]":
        settings = {"DATABASE_URL": database.render_as_string(hide_password=False), "CHAT_JWT_SECRET": SECRET}
        return run_cli(ROOT, "user", *arguments, **settings)

    def test_a_disabled_user_is_refused_on_every_replica_and_can_come_back(
        self, replicas: list[ChatProcess], shared_database: URL
    ) -> None:
        clients = [ChatClient(server.base_url, mint(SECRET, "mallory", seconds=600)) for server in replicas]
        bystander = ChatClient(replicas[0].base_url, mint(SECRET, "bystander", seconds=600))
        thread_id = clients[0].stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"]
        running = clients[1].stream("threads.create", input=message(script(words=5000, delay=0.02)))
        running.wait_for_text()
        done = self.run(shared_database, "disable", "mallory")
        assert (done.returncode, done.stdout) == (0, "mallory is disabled.\n")
        for client in clients:
            eventually(lambda client=client: client.post("threads.list").status_code == 403, 10)  # type: ignore[misc] # bound here
            assert client.post("threads.list").json()["code"] == "user_disabled"
        running.wait(10)
        assert [error["message"] for error in running.errors] == ["This account is disabled."]
        assert bystander.post("threads.list").status_code == 200
        assert "mallory\t" in self.run(shared_database, "list", "--disabled").stdout
        assert self.run(shared_database, "enable", "mallory").returncode == 0
        for client in clients:
            eventually(lambda client=client: client.post("threads.list").status_code == 200, 10)  # type: ignore[misc] # bound here
        # Nothing was lost meanwhile, and what was being said is kept.
        assert thread_id in [thread["id"] for thread in clients[0].call("threads.list")["data"]]
        assert running.seen in clients[0].items(running.thread_id)[-1]["content"][0]["text"]

    def test_somebody_unknown_can_be_locked_out_but_not_let_in(self, shared_database: URL) -> None:
        assert "There was no such user yet" in self.run(shared_database, "disable", "stranger").stdout
        missing = self.run(shared_database, "enable", "nobody")
        assert (missing.returncode, missing.stderr) == (1, "user: there is no user nobody\n")
        assert self.run(shared_database, "disable", "a\nb").returncode == 1
        listed = self.run(shared_database, "list", "--after", "s", "--limit", "1").stdout.splitlines()
        assert [line.split("\t")[0] for line in listed] == ["stranger"]

    def test_a_database_that_is_away_is_one_line(self) -> None:
        done = self.run(URL.create("postgresql", host="127.0.0.1", port=1), "list")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert done.stderr.startswith("DATABASE_URL: ")


def test_allowed_claims_are_kept_of_a_user_and_kept_up_to_date(server: ChatProcess, shared_database: URL) -> None:
    for name in ("Alice", "Alice B"):
        body = claims(sub="claimed", name=name, email="a@example.com", roles=["admin"], secret="no")
        client = ChatClient(server.base_url, token(Hmac(SECRET.encode()), body=body))
        client.stream("threads.create", input=message("Hello")).wait()
        (row,) = query(shared_database, "SELECT metadata::text AS m FROM chat_users WHERE user_id = 'claimed'")
        assert json.loads(row["m"]) == {"name": name, "email": "a@example.com", "roles": ["admin"]}


class Issuer:
    """Publishes its keys over HTTP."""

    def __init__(self) -> None:
        self.keys: list[dict[str, object]] = []
        self.is_away = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"keys": issuer.keys}).encode()
                self.send_response(503 if issuer.is_away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_without_keys_nobody_is_told_to_sign_in_again(
    tmp_path: Path, database_url: URL, model_server: ModelServer
) -> None:
    issuer, forge = Issuer(), Rsa()
    issuer.is_away = True
    settings = environment(database_url, model_server) | {
        "CHAT_JWKS_URL": issuer.url,
        "CHAT_JWT_SECRET": "",
        "CHAT_URL_SECRET": SECRET,
    }
    server = ChatProcess(tmp_path, **settings)
    try:
        eventually(lambda: _status(server, "/health/live") == 200, 30)
        ready = http.get(f"{server.base_url}/health/ready")
        assert (ready.status_code, ready.json()["keys"]) == (503, "unknown")
        client = ChatClient(server.base_url, token(forge))
        refused = client.post("threads.list")
        assert (refused.status_code, refused.json()["code"]) == (503, "keys_unavailable")
        assert "retry-after" in refused.headers
        assert ChatClient(server.base_url, "a.b.c").post("threads.list").status_code == 401
    finally:
        server.stop()
    issuer.is_away, issuer.keys = False, [forge.jwk()]
    server = ChatProcess(tmp_path, **settings).wait_until_ready()
    try:
        assert ChatClient(server.base_url, token(forge)).post("threads.list").status_code == 200
        issuer.is_away = True
        for stranger in (Rsa(kid="stranger"), Hmac(SECRET.encode())):
            assert ChatClient(server.base_url, token(stranger)).post("threads.list").status_code == 401
        assert ChatClient(server.base_url, mint(SECRET, "alice", seconds=60)).post("threads.list").status_code == 401
        assert ChatClient(server.base_url, token(forge)).post("threads.list").status_code == 200
        assert "eyJ" not in server.log
    finally:
        server.stop()
        issuer.close()


def _status(server: ChatProcess, path: str) -> int:
    try:
        return http.get(server.base_url + path).status_code
    except httpx2.ConnectError:
        return 0


def test_rules_speak_of_the_same_claims_as_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_JWKS_URL", "https://issuer.example/jwks")
    monkeypatch.setenv("CHAT_USER_CLAIMS", "name, email")
    monkeypatch.setenv("CHAT_JWT_AUDIENCE", "chat")
    wanted = TokenRules(algorithms=None, audience="chat", stored_claims=("name", "email"))
    assert load_settings().token_rules(is_dev=False) == wanted
