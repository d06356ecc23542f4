"""Approvals of every kind of tool: of agents that are tools, of agents that took over, and of MCP servers."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.store.ids import session_uuid
from tests.approvals.harness import Asked, asking, cards, errors, is_waiting, new_note, paying, replaced
from tests.assistant.test_mcp import HttpServer
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user
from tests.support.effects import VARIABLE, effects, prepare
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    done_items,
    eventually,
    message,
    texts,
    thread_id_of,
)


@pytest.fixture(scope="module")
def settings(shared_database: URL, strict_model_server: ModelServer) -> dict[str, str]:
    return environment(shared_database, strict_model_server) | prepare(shared_database)


@pytest.fixture(params=["responses", "chat_completions"])
def either_api(request: pytest.FixtureRequest, settings: dict[str, str]) -> dict[str, str]:
    return settings | {"CHAT_MODEL_API": request.param}


@contextmanager
def served(
    directory: Path, settings: dict[str, str], build: str, **more: str
) -> Iterator[tuple[ChatProcess, ChatClient]]:
    named = settings | {"CHAT_ASSISTANT": f"tests.support.approving:{build}"} | more
    process = ChatProcess(directory, **named).wait_until_ready()
    yield process, ChatClient(process.base_url, mint(SECRET, new_user(), seconds=3600))
    assert process.stop() == 0


def within(inner: str, tool: str) -> str:
    """A message with which an agent that is a tool is asked."""
    return asking((tool, {"input": inner}), ("look_up", {"what": "beside it"}))


def test_a_tool_of_an_agent_that_is_a_tool(tmp_path: Path, either_api: dict[str, str], shared_database: URL) -> None:
    with served(tmp_path, either_api, "build_with_agent_as_tool") as (_, client):
        for approve in (True, False):
            note = new_note()
            asked = Asked.by(client, within(paying(note), "ask_clerk"))
            assert "Clerk" in json.dumps(asked.cards)
            assert texts(done_items(asked.answer(approve=approve)))[-1] == "Done."
            assert effects(shared_database)[note] == approve


def test_an_agent_that_is_a_tool_and_asks_itself(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL
) -> None:
    """First for the agent, then for its tool; a restart between them."""
    note = new_note()
    with served(tmp_path, either_api, "build_with_agent_as_tool") as (_, client):
        asked = Asked.by(client, within(paying(note), "ask_after_approval"))
        assert "Reception" in json.dumps(asked.cards)
        asked.cards = cards(done_items(asked.answer()))
        assert "Clerk" in json.dumps(asked.cards)
        assert effects(shared_database)[note] == 0
        headers = client.headers
    with served(tmp_path, either_api, "build_with_agent_as_tool") as (_, again):
        again.headers = headers
        asked.client = again
        asked.done()
        assert effects(shared_database)[note] == 1


def test_an_agent_that_took_over(tmp_path: Path, either_api: dict[str, str], shared_database: URL) -> None:
    note = new_note()
    steps = [[["transfer_to_clerk", "{}"]], [["pay", json.dumps({"note": note})], ["look_up", '{"what": "x"}']]]
    with served(tmp_path, either_api, "build_with_handoff") as (_, client):
        asked = Asked.by(client, asking(steps=steps))
        assert "Clerk" in json.dumps(asked.cards)
        headers = client.headers
    with served(tmp_path, either_api, "build_with_handoff") as (_, again):
        again.headers = headers
        asked.client = again
        asked.done()
        assert effects(shared_database)[note] == 1


def test_an_agent_that_took_over_with_less_input(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL, strict_model_server: ModelServer
) -> None:
    words, note = new_note(), new_note()
    steps = [[["transfer_to_clerk", "{}"]], [["pay", json.dumps({"note": note})]]]
    with served(tmp_path, either_api, "build_with_filtered_handoff") as (_, client):
        asked = Asked(client, thread_id_of(client.create(words)), [])
        asked.cards = cards(done_items(client.post_message(asked.thread_id, asking(steps=steps, words=0))))
        before = json.dumps(strict_model_server.calls()[-1]["body"])
        asked.done()
        after = json.dumps(strict_model_server.calls()[-1]["body"])
        assert words not in before + after
        assert "SCRIPT" in before
        assert "SCRIPT" in after
        assert effects(shared_database)[note] == 1


@pytest.fixture(scope="module")
def http_server(shared_database: URL) -> Iterator[str]:
    server = HttpServer(**prepare(shared_database))
    yield server.url
    server.stop()


@pytest.mark.parametrize(
    ("rule", "api"),
    [("always", "responses"), (["pay"], "chat_completions"), ({"pay": "always", "add": "never"}, "responses")],
)
def test_a_tool_of_an_mcp_server(
    tmp_path: Path, settings: dict[str, str], shared_database: URL, http_server: str, rule: Any, api: str
) -> None:
    """Here and there, after a restart; the tool that needs no approval is not asked for."""
    servers = {
        "here": {
            "command": sys.executable,
            "args": ["-m", "tests.support.mcp_server", "stdio"],
            "cwd": str(ROOT),
            "env": {VARIABLE: settings[VARIABLE]},
            "require_approval": rule,
        },
        "there": {"url": http_server, "require_approval": rule},
    }
    settings = settings | {"CHAT_MODEL_API": api}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    notes = {name: new_note() for name in servers}
    asked: dict[str, Asked] = {}
    with served(tmp_path, settings, "build_plain", CHAT_MCP_FILE="mcp.json") as (process, client):
        eventually(lambda: process.log.count("mcp_connected") >= 2)
        for name, note in notes.items():
            adding: dict[str, Any] = {"a": 1, "b": 2}
            tools = [(f"mcp_{name}__pay", {"note": note}), (f"mcp_{name}__add", adding)]
            asked[name] = Asked.by(client, asking(*tools))
            assert len(asked[name].cards) == (2 if rule == "always" else 1)
            assert f"{name}: pay" in json.dumps(asked[name].cards)
        headers = client.headers
    with served(tmp_path, settings, "build_plain", CHAT_MCP_FILE="mcp.json") as (_, again):
        again.headers = headers
        for name, note in notes.items():
            asked[name].client = again
            events = [asked[name].answer(number) for number in range(len(asked[name].cards))]
            assert texts(done_items(events[-1]))[-1] == "Done."
            assert effects(shared_database)[note] == 1


def test_a_team_shows_its_own_cards(tmp_path: Path, settings: dict[str, str], shared_database: URL) -> None:
    note = new_note()
    with served(tmp_path, settings, "build_own_cards") as (_, client):
        asked = Asked.by(client, paying(note))
        assert f"pay for {note} (waiting)" in json.dumps(asked.cards)
        (card,) = replaced(asked.answer())
        assert f"pay for {note} (approved)" in json.dumps(card)
        assert effects(shared_database)[note] == 1
        asked = Asked.by(client, paying(new_note()))
        (card,) = replaced(client.post_message(asked.thread_id, "Hello"))
        assert "(not_answered)" in json.dumps(card)


def test_a_teams_mistake_in_a_card_does_not_lose_the_question(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    note = new_note()
    with served(tmp_path, settings, "build_broken_cards") as (process, client):
        asked = Asked.by(client, paying(note))
        assert is_waiting(asked.cards[0])
        asked.done()
        assert effects(shared_database)[note] == 1
        assert process.log.count("approval_card_failed") >= 1
        assert process.log.count("tool_label_failed") >= 1
        assert note not in process.log


def test_a_server_that_runs_another_agent_says_so(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    note = new_note()
    with served(tmp_path, settings, "ForgetfulServer") as (process, client):
        asked = Asked.by(client, paying(note))
        events = asked.answer()
        (error,) = errors(events)
        assert "ask it again" in error["message"]
        assert "was not done" in json.dumps(asked.card())
        assert "paused_run_not_taken" in process.log
        assert effects(shared_database)[note] == 0


def test_an_agent_that_was_changed_meanwhile_says_so(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    note = new_note()
    with served(tmp_path, settings, "build") as (_, client):
        asked = Asked.by(client, paying(note))
        headers = client.headers
    with served(tmp_path, settings, "build_plain") as (_, again):
        again.headers = headers
        asked.client = again
        (error,) = errors(asked.answer())
        assert "ask it again" in error["message"]
        assert "was not done" in json.dumps(asked.card())
        assert effects(shared_database)[note] == 0
        assert errors(again.post_message(asked.thread_id, "Hello")) == []


@pytest.mark.parametrize("build", ["build", "ApprovingServer"])
def test_the_history_is_no_part_of_the_state(
    tmp_path: Path,
    either_api: dict[str, str],
    shared_database: URL,
    strict_model_server: ModelServer,
    build: str,
) -> None:
    """It is read again when the run goes on; of a team's server, whose input may be anything, it is a part."""
    words, note = new_note(), new_note()
    with served(tmp_path, either_api, build) as (_, client):
        asked = Asked(client, thread_id_of(client.create(f"{words} {'x' * 25_000}")), [])
        events = client.post_message(asked.thread_id, paying(note))
        assert errors(events) == []
        asked.cards = cards(done_items(events))
        session = session_uuid(asked.thread_id)
        (row,) = query(shared_database, f"SELECT run_state FROM chat_approvals WHERE session_id = '{session}'")
        if build == "build":
            assert words not in row["run_state"]
            assert len(row["run_state"]) < 20_000
        asked.done()
        given = json.dumps(strict_model_server.calls()[-1]["body"])
        assert given.count(words) == 2  # The message, and the answer that quotes it.
        assert given.count(note) >= 2
        assert effects(shared_database)[note] == 1


def test_answers_that_are_faster_than_the_end_of_the_question(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    """The turn that asks waits for the title of its thread."""
    notes = [new_note(), new_note()]
    with served(tmp_path, settings, "build_slowly_titled") as (_, client):
        asking_stream = client.stream("threads.create", input=message(paying(*notes)))
        eventually(lambda: asking_stream.answer.count('"widget"') >= 2)
        asked = Asked(client, asking_stream.thread_id, cards(done_items(asking_stream.events)))
        assert errors(asked.answer(0)) == []
        asked.done(1)
        assert errors(asking_stream.wait()) == []
        assert [effects(shared_database)[note] for note in notes] == [1, 1]
        states = query(
            shared_database,
            f"SELECT state FROM chat_turns WHERE session_id = '{session_uuid(asked.thread_id)}' ORDER BY started_at",
        )
        assert [turn["state"] for turn in states] == ["waiting", "completed", "completed"]


def test_an_action_that_ends_an_approved_call_shows_so(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    note = new_note()
    with served(tmp_path, settings, "build_slowly_titled") as (_, client):
        asked = Asked.by(client, paying(note, before=3))
        first = client.items(asked.thread_id)[0]["id"]
        stream = asked.press()
        eventually(lambda: '"loading"' in stream.answer)
        client.events(
            "threads.custom_action", thread_id=asked.thread_id, action={"type": "delete", "payload": {"item_id": first}}
        )
        stream.wait()
        eventually(lambda: "not known" in json.dumps(asked.card()["widget"]))
        assert effects(shared_database)[note] == 0


def test_a_client_tool_beside_an_approval_is_called_after_it(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL
) -> None:
    note = new_note()
    with served(tmp_path, either_api, "build_with_client_tool") as (_, client):
        asked = Asked.by(client, asking(("pay", {"note": note}), ("ask_page", {})))
        assert [item["type"] for item in client.items(asked.thread_id)].count("client_tool_call") == 0
        events = asked.answer()
        assert errors(events) == []
        assert done_items(events)[-1]["type"] == "client_tool_call"
        assert done_items(events)[-1]["name"] == "get_page"
        after = client.events("threads.add_client_tool_output", thread_id=asked.thread_id, result="The page")
        assert errors(after) == []
        assert effects(shared_database)[note] == 1


def test_calls_of_a_run_that_a_guardrail_judges_are_remembered(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL
) -> None:
    with served(tmp_path, either_api, "build_guarded") as (_, client):
        asked = Asked.by(client, asking(("look_up", {"what": "moon"}), ("pay", {"note": new_note()})))
        asked.done()
        answer = texts(done_items(client.post_message(asked.thread_id, "what did look_up say")))[-1]
        assert "4004" in answer
    del shared_database


def test_a_follower_sees_the_answered_card(tmp_path: Path, settings: dict[str, str], shared_database: URL) -> None:
    note = new_note()
    with served(tmp_path, settings, "build") as (_, client):
        asked = Asked.by(client, paying(note, before=1))
        stream = asked.press()
        eventually(lambda: '"loading"' in stream.answer)
        follower = client.follow(asked.thread_id)
        assert "Approved" in json.dumps(follower.wait())
        stream.wait()
        assert effects(shared_database)[note] == 1
