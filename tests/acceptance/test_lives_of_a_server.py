"""What `serve` survives, and what it says when it cannot start."""

import os
import signal
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.db.migrations import head_revision
from tests.support.processes import (
    ChatClient,
    ChatProcess,
    ColdProcess,
    ModelServer,
    done_items,
    eventually,
    http,
    message,
    parse_events,
    run_cli,
    run_cold_cli,
    texts,
    thread_id_of,
)

SECRET = "s" * 48


def test_a_port_that_is_taken_is_noticed_before_anything_is_started(demo: ChatProcess, tmp_path: Path) -> None:
    second = run_cli(tmp_path, "serve", "--port", str(demo.port))
    assert second.returncode == 2
    assert f"--port: {demo.port} is taken by another server." in second.stderr
    assert "Traceback" not in second.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_yesterdays_conversation_is_there_after_a_restart(
    tmp_path: Path, embedded_settings: dict[str, str], end: signal.Signals
) -> None:
    # As people start it; how it ends does not depend on that.
    kind = ColdProcess if end == signal.SIGTERM else ChatProcess
    first = kind(tmp_path, **embedded_settings).wait_until_ready()
    thread_id = thread_id_of(first.client("alice").create("Remember me"))
    first.client("alice").post_message(thread_id, "And this")
    before = first.client("alice").items(thread_id)
    first.stop(end)
    second = ChatProcess(tmp_path, **embedded_settings).wait_until_ready()
    try:
        assert second.client("alice").items(thread_id) == before
        assert second.client("bob").call("threads.list")["data"] == []
        assert len(done_items(second.client("alice").post_message(thread_id, "Third"))) == 2
    finally:
        assert second.stop() == 0


def test_a_killed_database_comes_back_under_a_running_server(tmp_path: Path, embedded_settings: dict[str, str]) -> None:
    server = ChatProcess(tmp_path, **embedded_settings).wait_until_ready()
    try:
        client = server.client("alice")
        thread_id = thread_id_of(client.create("Hello"))
        before = client.items(thread_id)
        pid_file = tmp_path / ".data" / "postgres" / "cluster" / "postmaster.pid"
        killed = pid_file.read_text().splitlines()[0]
        os.kill(int(killed), signal.SIGKILL)
        # What the dead one has left behind may go on answering for a moment.
        eventually(lambda: pid_file.exists() and pid_file.read_text().splitlines()[:1] not in ([], [killed]))
        server.wait_until_ready()
        assert client.items(thread_id) == before
    finally:
        assert server.stop() == 0


def test_a_second_server_on_the_same_directory_says_who_is_there(
    demo: ChatProcess, embedded_settings: dict[str, str]
) -> None:
    second = run_cli(demo.directory, "serve", "--port", "0", **embedded_settings)
    assert second.returncode == 2
    assert f"Another server (pid {demo.process.pid}) is using" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("name", ["with space, 'single' and \"double\"", "x" * 120])
def test_strange_and_long_paths_work(tmp_path: Path, embedded_settings: dict[str, str], name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    server = ChatProcess(directory, **embedded_settings).wait_until_ready()
    try:
        assert len(done_items(server.client("alice").create("Hello"))) == 2
    finally:
        assert server.stop() == 0


def test_two_workers_share_the_embedded_database(tmp_path: Path, embedded_settings: dict[str, str]) -> None:
    server = ColdProcess(tmp_path, "--workers", "2", **embedded_settings).wait_until_ready()
    try:
        client = server.client("alice")
        thread_id = thread_id_of(client.create("Hello"))
        for number in range(6):
            client.post_message(thread_id, str(number))
        assert len(client.items(thread_id)) == 14
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_both_model_apis_hold_a_conversation(
    tmp_path: Path, database_url: URL, model_server: ModelServer, api: str
) -> None:
    """Three turns, the second with a tool call between two messages that the model gives one and the same id."""
    server = ChatProcess(
        tmp_path,
        DATABASE_URL=database_url.render_as_string(hide_password=False),
        CHAT_JWT_SECRET=SECRET,
        OPENAI_API_KEY="test",
        OPENAI_BASE_URL=model_server.url,
        CHAT_MODEL="test-model",
        CHAT_MODEL_API=api,
    ).wait_until_ready()
    try:
        client = _client(server, "alice")
        thread_id = thread_id_of(client.create("first"))
        client.post_message(thread_id, "please use the tool")
        client.post_message(thread_id, "third")
        items = [item for item in client.items(thread_id) if item["type"] != "workflow"]
        assert texts(items) == [
            "first",
            "You said 'first', and that is message 1 of yours.",
            "please use the tool",
            "Let me look.",
            "The tool has answered.",
            "third",
            "You said 'third', and that is message 3 of yours.",
        ]
        assert len({item["id"] for item in items}) == 7
        assert all(item["id"].startswith("msg_") and len(item["id"]) == 36 for item in items)
        last = model_server.calls()[-1]
        assert (last["api"], last["body"]["model"]) == (api, "test-model")
    finally:
        assert server.stop() == 0


def test_an_assistant_of_ones_own_is_plugged_in_by_its_import_string(
    tmp_path: Path, embedded_settings: dict[str, str]
) -> None:
    (tmp_path / "my_team").mkdir()
    (tmp_path / "my_team" / "echo.py").write_text(
        """
import asyncio
from datetime import datetime
from chatkit_postgres.assistant import Assistant
from chatkit.types import AssistantMessageContent, AssistantMessageItem, ThreadItemDoneEvent

class Echo(Assistant):
    async def respond(self, history, context):
        text = f"{context.request_context.user_id} said: {history[-1].content[0].text}"
        await asyncio.sleep(1 if "slowly" in text else 0)
        item = AssistantMessageItem(
            id=context.generate_id("message"), thread_id=context.thread.id, created_at=datetime.now(),
            content=[AssistantMessageContent(text=text)],
        )
        yield ThreadItemDoneEvent(item=item)
"""
    )
    server = ColdProcess(
        tmp_path, CHAT_ASSISTANT="my_team.echo:Echo", CHAT_HEARTBEAT_SECONDS="0.2", **embedded_settings
    )
    try:
        server.wait_until_ready()
        client = server.client("alice")
        events = client.create("Hello")
        assert texts(done_items(events)) == ["Hello", "alice said: Hello"]
        assert texts(client.items(thread_id_of(events))) == ["Hello", "alice said: Hello"]
        # Silence is filled with comments: single lines between complete events, which no parser takes for one.
        slow = client.post("threads.create", input=message("slowly")).text
        assert slow.count(": ping\n") >= 3
        assert ": ping\n\n" not in slow
        assert texts(done_items(parse_events(slow.replace(": ping\n", "")))) == ["slowly", "alice said: slowly"]
    finally:
        assert server.stop() == 0


class TestConfiguration:
    def test_all_problems_are_reported_together_with_their_cures(self, tmp_path: Path) -> None:
        done = run_cold_cli(
            tmp_path,
            "serve",
            DATABASE_URL="mysql://root:hunter2@db/x",
            CHAT_JWT_LEEWAY_SECONDS="soon",
            CHAT_CORS_ORIGINS="*",
            CHAT_ASSISTANT="nonsense",
        )
        assert done.returncode == 2
        for name in ("DATABASE_URL", "CHAT_JWT_LEEWAY_SECONDS", "CHAT_CORS_ORIGINS", "CHAT_ASSISTANT"):
            assert f"{name}: " in done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr


class TestOwnDatabase:
    def test_serve_leaves_a_database_of_ones_own_to_migrate(self, tmp_path: Path, empty_url: URL) -> None:
        environment = {"DATABASE_URL": empty_url.render_as_string(hide_password=False), "CHAT_JWT_SECRET": SECRET}
        server = ChatProcess(tmp_path, **environment)
        try:
            while True:
                try:
                    ready = http.get(f"{server.base_url}/health/ready")
                    break
                except httpx2.TransportError:
                    assert server.process.poll() is None, server.log
            assert ready.status_code == 503
            assert ready.json()["revision"] == {"seen": None, "wanted": head_revision()}
            assert http.get(f"{server.base_url}/health/live").status_code == 200
            migrated = run_cli(tmp_path, "migrate", **environment)
            assert (migrated.returncode, migrated.stdout) == (0, f"The database is at revision {head_revision()}.\n")
            assert http.get(f"{server.base_url}/health/ready").json()["revision"]["seen"] == head_revision()
            assert len(done_items(_client(server, "alice").create("Hello"))) == 2
        finally:
            assert server.stop() == 0


class TestCommands:
    def test_version(self, tmp_path: Path) -> None:
        assert run_cold_cli(tmp_path, "version").stdout.strip()

    def test_check_of_a_fresh_directory(self, tmp_path: Path, embedded_settings: dict[str, str]) -> None:
        done = run_cold_cli(tmp_path, "check", **embedded_settings)
        assert done.returncode == 0, done.stderr
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [
            ["configuration", "ok"],
            ["assistant", "ok"],
            ["keys", "ok"],
            ["database", "ok"],
            ["storage", "ok"],
            ["model", "ok"],
        ]

    def test_check_beside_a_running_server(self, demo: ChatProcess, embedded_settings: dict[str, str]) -> None:
        done = run_cli(demo.directory, "check", **embedded_settings)
        assert done.returncode == 0
        assert f"at revision {head_revision()}" in done.stdout
        printed = done.stdout.partition("settings ")[2].split()[0]
        assert f'settings="{printed}"' in http.get(f"{demo.base_url}/metrics").text

    def test_check_names_what_fails(self, tmp_path: Path, model_server: ModelServer) -> None:
        own = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "CHAT_JWT_SECRET": SECRET}
        done = run_cli(tmp_path, "check", OPENAI_BASE_URL="http://127.0.0.1:1/v1", CHAT_ASSISTANT="os:nowhere", **own)
        assert done.returncode == 1
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [
            ["configuration", "ok"],
            ["assistant", "failed"],
            ["keys", "ok"],
            ["database", "failed"],
            ["storage", "ok"],
            ["model", "failed"],
        ]
        assert "model          ok" in run_cli(tmp_path, "check", OPENAI_BASE_URL=model_server.url, **own).stdout

    def test_token_of_the_command_line_is_good_for_the_server(
        self, demo: ChatProcess, embedded_settings: dict[str, str]
    ) -> None:
        printed = run_cli(demo.directory, "token", "--user", "cli-user", **embedded_settings).stdout.strip()
        answer = http.post(
            f"{demo.base_url}/api/chatkit",
            json={"type": "threads.list", "params": {}},
            headers={"Authorization": f"Bearer {printed}"},
        )
        assert answer.status_code == 200


def _client(server: ChatProcess, user: str) -> ChatClient:
    return ChatClient(server.base_url, mint(SECRET, user, seconds=60))
