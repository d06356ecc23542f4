"""Tools of real MCP servers, over both transports."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServer
from sqlalchemy import URL

from chatkit_postgres.assistant.handoffs import with_servers
from chatkit_postgres.assistant.tools import mcp_servers
from chatkit_postgres.assistant.tools.mcp_file import McpServer
from chatkit_postgres.assistant.tools.mcp_servers import McpServers, connection_to
from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    done_items,
    eventually,
    free_port,
    texts,
    thread_id_of,
)

STDIO: dict[str, Any] = {
    "command": sys.executable,
    "args": ["-m", "tests.support.mcp_server", "stdio"],
    "env": {"GIVEN": "1"},
}


class HttpServer:
    def __init__(self, **environment: str) -> None:
        self.environment = environment
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.start()

    def start(self) -> None:
        arguments = [sys.executable, "-m", "tests.support.mcp_server", "http", str(self.port)]
        self.process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=clean_environment(**self.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Equipped:
    def __init__(self, process: ChatProcess, model: ModelServer) -> None:
        self.process = process
        self.model = model

    def client(self) -> ChatClient:
        return ChatClient(self.process.base_url, mint(SECRET, new_user(), seconds=3600))

    def connected(self, server: str) -> int:
        lines = [json.loads(line) for line in self.process.log.splitlines() if "mcp_connected" in line]
        return sum(line["server"] == server for line in lines)

    def use(self, tool: str, arguments: str = "{}", client: ChatClient | None = None) -> list[dict[str, Any]]:
        return (client or self.client()).create(f"use the tool {tool} {arguments}")

    def output(self) -> str:
        """What the last tool answered."""
        for call in reversed(self.model.calls()):
            given = call["body"].get("input") or call["body"].get("messages") or []
            if given and (given[-1].get("role") == "tool" or given[-1].get("type") == "function_call_output"):
                return json.dumps(given[-1])
        raise AssertionError("no tool has answered")


async def connected(servers: McpServers) -> MCPServer:
    """The only one of them, once it is there."""
    async with asyncio.timeout(20):
        while not servers.connected:  # noqa: ASYNC110 - as a turn looks, which waits for nothing
            await asyncio.sleep(0.05)
    (connection,) = servers.connected
    return connection


@pytest.fixture(scope="module")
def http_server() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def equipped(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer, http_server: HttpServer
) -> Iterator[Equipped]:
    directory = tmp_path_factory.mktemp("equipped")
    servers = {
        "here": STDIO | {"cwd": str(ROOT)},
        "there": {"type": "http", "url": http_server.url, "headers": {"X-Test": "1"}},
        "away": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
        "wrong": {"command": "/nowhere/at/all"},
        "brief": {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]},
    }
    (directory / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    settings = environment(shared_database, model_server) | {"CHAT_MCP_FILE": "mcp.json"}
    settings["CHAT_ASSISTANT"] = "tests.support.assistants:build_with_card"
    process = ChatProcess(directory, **settings).wait_until_ready()
    made = Equipped(process, model_server)
    for name in ("here", "there"):
        eventually(lambda name=name: made.connected(name) > 0, what=f"{name} is connected")  # type: ignore[misc]
    yield made
    assert process.stop() == 0


@pytest.mark.parametrize("server", ["here", "there"])
def test_a_tool_answers_and_its_call_is_shown_as_a_task(equipped: Equipped, server: str) -> None:
    client = equipped.client()
    events = equipped.use(f"mcp_{server}__add", '{"a": 2, "b": 3}', client)
    assert "the sum is 5" in equipped.output()
    (workflow,) = [item for item in done_items(events) if item["type"] == "workflow"]
    assert [(task["title"], task["status_indicator"]) for task in workflow["workflow"]["tasks"]] == [
        (f"{server}: add", "complete")
    ]
    updates = [event["update"]["task"]["status_indicator"] for event in events if "task" in event.get("update", {})]
    assert updates[-1:] == ["complete"]
    assert f"{server}: add" in [event.get("text") for event in events if event["type"] == "progress_update"]
    assert texts([done_items(events)[-1]]) == ["The tool has answered."]


def test_a_call_that_outlasts_its_workflow_is_not_shown_as_running_for_ever(equipped: Equipped) -> None:
    """A widget that another tool shows meanwhile ends the workflow."""
    client = equipped.client()
    script = {"words": 1, "tools": [["mcp_here__slowly", "{}"], ["show_card", "{}"]], "note": new_user()}
    thread_id = thread_id_of(client.create(f"SCRIPT {json.dumps(script)}"))
    items = {item["type"]: item for item in client.items(thread_id)}
    assert "widget" in items
    tasks = items["workflow"]["workflow"]["tasks"]
    assert {(task["title"], task["status_indicator"]) for task in tasks} == {
        ("here: slowly", "complete"),
        ("Show card", "complete"),
    }


@pytest.mark.parametrize("server", ["here", "there"])
def test_what_a_server_says_of_its_progress_is_shown_and_not_too_often(equipped: Equipped, server: str) -> None:
    events = equipped.use(f"mcp_{server}__report")
    assert "read 500 pages" in equipped.output()
    progress = [event["text"] for event in events if event["type"] == "progress_update"]
    assert progress[0] == f"{server}: report"
    assert progress[1].startswith(f"{server}: report: page ")
    assert 2 <= len(progress) <= 20
    tasks = [event["update"]["task"] for event in events if "task" in event.get("update", {})]
    assert any(task.get("content", "").startswith("page ") for task in tasks)
    assert tasks[-1]["status_indicator"] == "complete"
    assert "content" not in tasks[-1]


@pytest.mark.parametrize("server", ["here", "there"])
def test_of_an_endless_answer_the_model_reads_the_beginning(equipped: Equipped, server: str) -> None:
    equipped.use(f"mcp_{server}__much")
    output = equipped.output()
    assert "[900000 characters left out]" in output
    assert len(output) < 110_000


@pytest.mark.parametrize("server", ["here", "there"])
def test_a_tool_that_a_server_has_learned_is_there_for_the_next_turns(equipped: Equipped, server: str) -> None:
    name = f"learned_{new_user().replace('-', '_')}"
    equipped.use(f"mcp_{server}__learn", json.dumps({"name": name}))

    def is_known() -> bool:
        equipped.client().create("Hello")
        return any(name in tool["function"]["name"] for tool in equipped.model.calls()[-1]["body"]["tools"])

    eventually(is_known, what="the tool is there")


@pytest.mark.parametrize("server", ["here", "there"])
async def test_calls_of_one_connection_do_not_wait_for_each_other(http_server: HttpServer, server: str) -> None:
    given = McpServer(command=STDIO["command"], args=STDIO["args"], cwd=ROOT)
    servers = McpServers({server: given if server == "here" else McpServer(url=http_server.url)})
    servers.start()
    try:
        connection = await connected(servers)
        waiting = asyncio.create_task(connection.call_tool("wait", {}))
        await asyncio.sleep(0)
        await connection.call_tool("hurry", {})
        assert "somebody came" in str(await waiting)
    finally:
        await servers.close()


def test_those_an_agent_hands_over_to_have_the_tools_too() -> None:
    first, second = Agent(name="first", instructions="x"), Agent(name="second", instructions="x")
    first.handoffs, second.handoffs = [second], [first]
    server = connection_to("one", McpServer(url="http://127.0.0.1:9/mcp"))
    copy = with_servers(first, [server], {})
    (handed,) = copy.handoffs
    assert isinstance(handed, Agent)
    assert (copy.mcp_servers, handed.mcp_servers, handed.handoffs) == ([server], [server], [copy])
    assert (first.mcp_servers, second.mcp_servers, second.handoffs) == ([], [], [first])


def test_the_tools_of_all_servers_are_there_under_names_of_their_own(equipped: Equipped) -> None:
    equipped.client().create("Hello, tools")
    body = next(call["body"] for call in equipped.model.calls() if "Hello, tools" in json.dumps(call["body"]))
    names = {tool["function"]["name"] for tool in body["tools"]}
    assert {"mcp_here__add", "mcp_there__add", "mcp_here__slowly", "mcp_there__fail"} <= names
    assert not any(name.startswith(("mcp_away", "mcp_wrong")) for name in names)


def test_one_connection_serves_all_turns(equipped: Equipped) -> None:
    before = equipped.connected("here"), equipped.connected("there")
    for _ in range(3):
        equipped.use("mcp_here__add", '{"a": 1, "b": 1}')
        equipped.use("mcp_there__add", '{"a": 1, "b": 1}')
    assert (equipped.connected("here"), equipped.connected("there")) == before


def test_a_tool_that_fails_is_told_to_the_model(equipped: Equipped) -> None:
    events = equipped.use("mcp_there__fail")
    assert "error" not in {event["type"] for event in events}
    assert texts([done_items(events)[-1]]) == ["The tool has answered."]
    # And shown as what it is.
    (workflow,) = [item for item in done_items(events) if item["type"] == "workflow"]
    (task,) = workflow["workflow"]["tasks"]
    assert (task["content"], task["status_indicator"]) == ("It failed.", "none")


def test_a_program_sees_nothing_of_our_environment(equipped: Equipped) -> None:
    equipped.use("mcp_here__environment")
    seen = equipped.output()
    assert "GIVEN" in seen
    for secret in ("CHAT_JWT_SECRET", "DATABASE_URL", "OPENAI"):
        assert secret not in seen


def _lost_and_found(equipped: Equipped, server: str, lose: Callable[[], object]) -> None:
    lose()
    # The chat goes on meanwhile.
    assert texts([done_items(equipped.client().create("Still there?"))[-1]])

    def answers() -> bool:
        client = equipped.client()
        client.create("Which tools?")
        body = [call["body"] for call in equipped.model.calls() if "Which tools?" in json.dumps(call["body"])][-1]
        if f"mcp_{server}__add" not in json.dumps(body.get("tools", [])):
            return False
        equipped.use(f"mcp_{server}__add", '{"a": 20, "b": 22}', client)
        return "the sum is 42" in equipped.output()

    eventually(answers, 90, f"{server} answers again")


def test_the_log_says_why_a_server_is_not_there(equipped: Equipped) -> None:
    def why() -> dict[str, tuple[str, str]]:
        lines = [json.loads(line) for line in equipped.process.log.splitlines() if "mcp_not_connected" in line]
        return {line["server"]: (line["at"], line["reason"]) for line in lines}

    eventually(lambda: {"away", "wrong", "brief"} <= set(why()), what="all three were tried")
    place, reason = why()["away"]
    assert place.startswith("http://127.0.0.1:")
    assert "/mcp" not in place
    assert "Could not reach" in reason
    assert why()["wrong"] == ("/nowhere/at/all", "FileNotFoundError: No such file or directory")
    place, reason = why()["brief"]
    assert place == sys.executable
    assert reason not in {"ExceptionGroup", "UserError"}


def test_a_program_that_ended_is_started_again(equipped: Equipped) -> None:
    _lost_and_found(equipped, "here", lambda: equipped.use("mcp_here__end"))


def test_a_server_that_was_restarted_is_connected_again(equipped: Equipped, http_server: HttpServer) -> None:
    def restart() -> None:
        http_server.stop()
        http_server.start()

    _lost_and_found(equipped, "there", restart)


async def test_a_connection_outlives_the_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_servers, "POLL_SECONDS", 0.1)
    servers = McpServers({"here": McpServer(command=STDIO["command"], args=STDIO["args"], cwd=ROOT)})
    servers.start()
    try:
        connection = await connected(servers)
        slow = asyncio.create_task(connection.call_tool("slowly", {}))
        await asyncio.sleep(1)
        assert list(servers.connected) == [connection]
        assert "done slowly" in str(await slow)
    finally:
        await servers.close()


async def test_a_program_that_never_speaks_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_servers, "CLOSE_SECONDS", 0.5)
    mute = [sys.executable, "-c", "import time; time.sleep(3)"]
    servers = McpServers({"mute": McpServer(command=mute[0], args=mute[1:])})
    servers.start()
    await asyncio.sleep(0.5)
    assert servers.connected == []
    async with asyncio.timeout(2):
        await servers.close()
    await asyncio.gather(*servers._tasks, return_exceptions=True)
