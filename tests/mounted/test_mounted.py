"""Mounted in a host application: its users, its process, our promises."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agents import Agent
from fastapi import FastAPI
from sqlalchemy import URL

from chatkit_postgres import AgentAssistant, create_app, lifespan
from chatkit_postgres.settings import ConfigurationError
from tests.assistant.test_mcp import STDIO
from tests.conftest import execute, query
from tests.faults.harness import environment, script
from tests.mounted.host import COOKIE, user_of
from tests.samples.transit import TransitServer
from tests.support.files import image_bytes
from tests.support.processes import (
    ROOT,
    ChatProcess,
    ModelServer,
    Stream,
    done_items,
    eventually,
    http,
    message,
    parse_events,
    texts,
    thread_id_of,
)

HOST = ("uvicorn", "--factory", "tests.mounted.host:create_host")


class HostProcess(ChatProcess):
    """Plain uvicorn, with the chat under /chat."""

    @property
    def chat_url(self) -> str:
        return f"{self.base_url}/chat"

    def wait_until_up(self) -> "HostProcess":
        eventually(self._answers, 60, "the host is up")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return http.get(f"{self.chat_url}/health/live").status_code == 200
        except httpx2.TransportError:
            return False


def start(directory: Path, database: URL, model: ModelServer, *command: str, **more: str) -> HostProcess:
    settings = environment(database, model, CHAT_URL_SECRET="u" * 48, **more)
    del settings["CHAT_JWT_SECRET"], settings["CHAT_ASSISTANT"]
    return HostProcess(directory, *(command or HOST), **settings).wait_until_up()


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("host")
    (directory / "mcp.json").write_text(json.dumps({"mcpServers": {"sums": STDIO | {"cwd": str(ROOT)}}}))
    own = {"CHAT_MCP_FILE": "mcp.json", "CHAT_TURN_STALE_SECONDS": "3", "CHAT_DRAIN_SECONDS": "3"}
    process = start(directory, shared_database, model_server, **own)
    eventually(lambda: http.get(f"{process.chat_url}/health/ready").status_code == 200)
    yield process
    process.stop()


def signed_in(host: HostProcess, user: str) -> httpx2.Client:
    return signed_in_at(host.base_url, user)


def signed_in_at(base_url: str, user: str) -> httpx2.Client:
    # Not by the shared client, which would keep the cookie.
    key = httpx2.post(f"{base_url}/sign-in", params={"user": user}).cookies[COOKIE]
    return httpx2.Client(base_url=base_url, timeout=60, cookies={COOKIE: key})


def call(client: httpx2.Client, operation: str, **params: Any) -> httpx2.Response:
    return client.post("/chat/api/chatkit", json={"type": operation, "params": params})


def post_message(client: httpx2.Client, text: str, **more: Any) -> list[dict[str, Any]]:
    answered = call(client, "threads.create", input=message(text) | more)
    assert answered.status_code == 200, answered.text
    return parse_events(answered.text)


def test_two_users_of_the_host_have_their_own_conversations(host: HostProcess, shared_database: URL) -> None:
    with signed_in(host, "ann") as ann, signed_in(host, "bob") as bob:
        events = post_message(ann, "Hello")
        assert [item["type"] for item in done_items(events)] == ["user_message", "assistant_message"], events
        thread_id = thread_id_of(events)
        assert call(bob, "threads.get_by_id", thread_id=thread_id).status_code == 404
        assert call(bob, "threads.list").json()["data"] == []
        assert len(call(ann, "threads.list").json()["data"]) == 1
    (row,) = query(shared_database, "SELECT metadata FROM chat_users WHERE user_id = 'ann'")
    assert json.loads(row["metadata"]) == {"roles": ["guest"]}


def test_nobody_is_refused_in_the_shape_of_every_error(host: HostProcess) -> None:
    refused = http.post(f"{host.chat_url}/api/chatkit", json={"type": "threads.list", "params": {}})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_a_page_of_another_origin_cannot_use_the_hosts_cookie(host: HostProcess) -> None:
    with signed_in(host, "cleo") as cleo:
        body = {"type": "threads.list", "params": {}}
        foreign = cleo.post("/chat/api/chatkit", json=body, headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_origin")
        assert cleo.post("/chat/api/chatkit", json=body, headers={"Origin": host.base_url}).status_code == 200
        # The default origins, of development servers, are nobody's here; and a browser tells where it is.
        for headers in ({"Origin": "http://localhost:3000"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            form = cleo.post("/chat/api/attachments", files={"file": ("a.txt", b"x", "text/plain")}, headers=headers)
            assert (form.status_code, form.json()["code"]) == (403, "foreign_origin"), headers


def test_files_go_through_links_that_know_where_it_is_mounted(host: HostProcess) -> None:
    with signed_in(host, "dora") as dora:
        data = image_bytes()
        made = call(dora, "attachments.create", name="a.png", size=len(data), mime_type="image/png").json()
        upload = made["upload_descriptor"]
        assert upload["url"].startswith(f"{host.chat_url}/api/attachments/")
        assert http.request(upload["method"], upload["url"], content=data).status_code == 200
        post_message(dora, "Look", attachments=[made["id"]])
        described = dora.get(f"/chat/api/attachments/{made['id']}").json()
        links = [value for value in described.values() if isinstance(value, str) and value.startswith("http")]
        assert links
        for link in links:
            assert link.startswith(f"{host.chat_url}/api/attachments/")
            assert http.get(link).status_code == 200


def test_tools_of_mcp_servers_are_there(host: HostProcess, model_server: ModelServer) -> None:
    def names() -> set[str]:
        with signed_in(host, "eve") as eve:
            post_message(eve, "Which tools?")
        return {tool["function"]["name"] for tool in model_server.calls()[-1]["body"].get("tools", [])}

    eventually(lambda: any("sums" in name and "add" in name for name in names()))


def test_the_clean_up_runs(host: HostProcess, shared_database: URL) -> None:
    with signed_in(host, "fay") as fay:
        made = call(fay, "attachments.create", name="a.txt", size=1, mime_type="text/plain").json()["id"]
        call(fay, "attachments.delete", attachment_id=made)
    where = f"WHERE attachment_id = '{made}'"
    execute(shared_database, f"UPDATE chat_attachments SET deleted_at = now() - interval '61 minutes' {where}")
    eventually(lambda: query(shared_database, f"SELECT 1 FROM chat_attachments {where}") == [])


def test_the_process_is_the_hosts(host: HostProcess) -> None:
    with signed_in(host, "max") as max_:
        post_message(max_, "A secret sentence")
    seen = http.get(f"{host.base_url}/process").json()
    assert seen["logging"]
    assert seen["collector"]
    assert "chatkit_postgres" not in seen["signals"]
    # Its own runs of the Agents SDK go where they went before.
    assert seen["agents"]
    assert seen["bound"] == "acme"
    # Its format, and nothing that was said.
    assert "HOST chatkit_postgres.requests event='request'" in host.log
    assert "A secret sentence" not in host.log


def test_health_is_asked_for_where_it_is_mounted(host: HostProcess) -> None:
    ready = http.get(f"{host.chat_url}/health/ready")
    assert (ready.status_code, ready.json()["lifespan"]) == (200, "ok")
    assert http.head(f"{host.chat_url}/health/ready").status_code == 200


def test_sigterm_ends_answers_and_saves_them(tmp_path: Path, shared_database: URL, model_server: ModelServer) -> None:
    limit = ("--timeout-graceful-shutdown", "2")
    # With the heartbeats that the other server expects: it takes whoever is silent for longer for dead.
    own = {"CHAT_DRAIN_SECONDS": "2", "CHAT_TURN_STALE_SECONDS": "1"}
    server = start(tmp_path, shared_database, model_server, *HOST, *limit, **own)
    with signed_in(server, "gus") as gus:
        body = {"type": "threads.create", "params": {"input": message(script(words=5000, delay=0.02))}}
        cookie = "; ".join(f"{name}={value}" for name, value in gus.cookies.items())
        stream = Stream(f"{server.chat_url}/api/chatkit", body, {"Cookie": cookie})
        stream.wait_for_text(10)
        server.process.send_signal(signal.SIGTERM)
        stream.wait(30)
        # A second signal would end it at once.
        server.process.wait(30)
    server.stop()
    (turn,) = query(shared_database, "SELECT state FROM chat_turns WHERE user_id = 'gus'")
    # By the drain, unless uvicorn has cut the reader off before.
    assert turn["state"] in {"interrupted", "stopped"}
    rows = query(
        shared_database,
        "SELECT content FROM chat_messages WHERE user_id = 'gus' AND item_type = 'assistant_message'",
    )
    assert len(rows) == 1
    assert rows[0]["content"].startswith(stream.seen)
    assert stream.seen.startswith("w0 w1 w2")


def test_links_behind_a_proxy_that_strips_a_prefix(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    """``uvicorn --root-path``, as behind a proxy under a path, and mounted in there."""
    server = start(tmp_path, shared_database, model_server, *HOST, "--root-path", "/apps/shop")
    try:
        with signed_in(server, "ida") as ida:
            made = call(ida, "attachments.create", name="a.txt", size=1, mime_type="text/plain").json()
        address = made["upload_descriptor"]["url"]
        assert address.startswith(f"{server.base_url}/apps/shop/chat/api/attachments/")
        # The proxy takes the prefix off again.
        reached = http.put(address.replace("/apps/shop", "", 1), content=b"x")
        assert reached.status_code == 200
    finally:
        server.stop()


def test_without_the_lifespan_it_refuses_and_says_why(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    command = ("uvicorn", "--factory", "tests.mounted.host:create_host_without_lifespan")
    server = start(tmp_path, shared_database, model_server, *command)
    try:
        ready = http.get(f"{server.chat_url}/health/ready")
        assert (ready.status_code, ready.json()["lifespan"]) == (503, "not_started")
        with signed_in_at(server.base_url, "ivy") as ivy:
            refused = call(ivy, "threads.create", input=message("Hello"))
        assert (refused.status_code, refused.json()["code"]) == (503, "not_started")
        assert "chatkit_postgres.lifespan(chat)" in server.log
        assert query(shared_database, "SELECT 1 FROM chat_turns WHERE user_id = 'ivy'") == []
        # Nor is a link of a file good for anything.
        link = f"{server.chat_url}/api/attachments/atc_1/content?key=x"
        assert http.get(link).json()["code"] == "not_started"
    finally:
        server.stop()


def test_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as refused:
        create_app(assistant=object(), authenticate=user_of)
    names = [problem.partition(":")[0] for problem in refused.value.problems]
    assert names == ["CHAT_URL_SECRET", "DATABASE_URL", "create_app(assistant=...)"]


def test_the_numbers_of_the_process_are_not_public(host: HostProcess) -> None:
    assert http.get(f"{host.chat_url}/metrics").status_code == 404


async def test_the_lifespan_runs_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: URL) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)
    chat = create_app(assistant=Agent(name="A"), authenticate=user_of)
    host = FastAPI()
    async with lifespan(chat)(host):
        with pytest.raises(RuntimeError, match="runs once"):
            async with lifespan(chat)(host):
                pass
        assert chat.state.parts.started.is_set()
    with pytest.raises(RuntimeError, match="runs once"):
        async with lifespan(chat)(host):
            pass


async def test_an_assistant_that_fails_to_close_leaves_no_connection_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: URL
) -> None:
    class Careless(AgentAssistant):
        async def close(self) -> None:
            raise OSError("the team's cache")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)
    chat = create_app(assistant=Careless(Agent(name="A")), authenticate=user_of)
    with pytest.raises(OSError, match="cache"):
        async with lifespan(chat)(FastAPI()):
            assert await asyncio.to_thread(open_connections, database_url) > 0
    await asyncio.to_thread(eventually, lambda: open_connections(database_url) == 0)


def open_connections(database_url: URL) -> int:
    """Besides the one that asks."""
    others = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return int(query(database_url, others)[0]["n"])


async def test_a_start_that_fails_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: URL
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)

    class Failing(AgentAssistant):
        async def start(self) -> None:
            raise ValueError("cannot start")

    chat = create_app(assistant=Failing(Agent(name="A")), authenticate=user_of)
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="cannot start"):
        async with lifespan(chat)(FastAPI()):
            pass
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_one_server_object_serves_one_application(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two applications may have two databases."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/a")
    server, assistant = TransitServer(), AgentAssistant(Agent(name="A"))
    for shared in (server, assistant):
        create_app(assistant=shared, authenticate=user_of)
        with pytest.raises(ConfigurationError, match="serves another application already"):
            create_app(assistant=shared, authenticate=user_of)


def test_texts_are_whole(host: HostProcess) -> None:
    with signed_in(host, "hal") as hal:
        assert texts(done_items(post_message(hal, script(words=4))))[-1].split() == ["w0", "w1", "w2", "w3"]
