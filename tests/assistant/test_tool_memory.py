"""What tools said in earlier turns is given to the model again: over sockets, by both APIs, in requests that keep the
APIs' rules. The model answers from nothing but its request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.store.ids import session_uuid
from tests.approvals.harness import Asked
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user
from tests.support.effects import prepare
from tests.support.processes import (
    ChatClient,
    ChatProcess,
    Event,
    ModelServer,
    done_items,
    eventually,
    message,
    texts,
    thread_id_of,
)
from tests.support.strict_model import refusal_of

RECALL = "what did look_up say"


@pytest.fixture
def settings(shared_database: URL, strict_model_server: ModelServer) -> dict[str, str]:
    return environment(shared_database, strict_model_server) | prepare(shared_database)


@pytest.fixture(params=["responses", "chat_completions"])
def either_api(request: pytest.FixtureRequest, settings: dict[str, str]) -> dict[str, str]:
    return settings | {"CHAT_MODEL_API": request.param}


@contextmanager
def served(
    directory: Path, settings: dict[str, str], build: str = "approving:build", user: str = "", **more: str
) -> Iterator[ChatClient]:
    named = settings | {"CHAT_ASSISTANT": f"tests.support.{build}"} | more
    process = ChatProcess(directory, **named).wait_until_ready()
    yield ChatClient(process.base_url, mint(SECRET, user or new_user(), seconds=3600))
    assert process.stop() == 0


def looking(*what: str, **more: Any) -> str:
    calls = [["look_up", json.dumps({"what": each})] for each in what]
    return "SCRIPT " + json.dumps({"words": 2, "tools": calls, "note": new_user(), **more})


def said(events: list[Event]) -> str:
    assert [event for event in events if event["type"] == "error"] == []
    return texts(done_items(events))[-1]


def calls_in(database: URL, thread_id: str) -> list[dict[str, Any]]:
    return query(
        database,
        "SELECT name, arguments, output, is_draft FROM chat_tool_calls"
        f" WHERE session_id = '{session_uuid(thread_id)}' ORDER BY position, sequence",
    )


def test_a_model_remembers_what_a_tool_said(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL, strict_model_server: ModelServer
) -> None:
    user = new_user()
    with served(tmp_path, either_api, user=user) as client:
        # Two calls at once, and a second round.
        thread_id = thread_id_of(client.create(looking("moon", "sea", rounds=2)))
        other = thread_id_of(client.create("Hello"))
        assert said(client.post_message(thread_id, RECALL)).count("the secret number is 4004") == 2
        # In its own thread only.
        assert said(client.post_message(other, RECALL)) == "I do not know."
    with served(tmp_path, either_api, user=user) as client:
        answer = said(client.post_message(thread_id, RECALL))
        assert answer.count("moon: the secret number is 4004") == answer.count("sea: the secret number is 3003") == 2
        question = [item["id"] for item in client.items(thread_id) if item["type"] == "user_message"][-1]
        events = client.stream("threads.retry_after_item", thread_id=thread_id, item_id=question).wait()
        assert said(events) == answer
    body = strict_model_server.calls()[-1]["body"]
    assert refusal_of(either_api["CHAT_MODEL_API"], body) is None
    ids = [item["call_id"] for item in body.get("input", ()) if item.get("type") == "function_call"]
    ids += [call["id"] for message in body.get("messages", ()) for call in message.get("tool_calls") or ()]
    assert len(ids) == len(set(ids)) == 4
    assert all(len(call_id) <= 64 for call_id in ids)
    assert len(calls_in(shared_database, thread_id)) == 4


def test_a_retry_replaces_what_tools_said(tmp_path: Path, either_api: dict[str, str], shared_database: URL) -> None:
    with served(tmp_path, either_api) as client:
        thread_id = thread_id_of(client.create(looking("moon")))
        question = client.items(thread_id)[0]["id"]
        client.stream("threads.retry_after_item", thread_id=thread_id, item_id=question).wait()
        (call,) = calls_in(shared_database, thread_id)
        assert not call["is_draft"]
        assert said(client.post_message(thread_id, RECALL)).count("4004") == 1


def test_a_retry_that_fails_changes_nothing_in_memory(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    """Its first answer is whole; the second one uses the tool, and breaks before any text."""
    note = new_user()
    script = {"tools": [["look_up", json.dumps({"what": "moon"})]], "note": note}
    with served(tmp_path, settings) as client:
        thread_id = thread_id_of(client.create("SCRIPT " + json.dumps(script)))
        (before,) = calls_in(shared_database, thread_id)
    with served(tmp_path, settings, build="approving:build_silent") as again:
        again.headers = client.headers
        question = again.items(thread_id)[0]["id"]
        stream = again.stream("threads.retry_after_item", thread_id=thread_id, item_id=question)
        stream.wait()
        assert [error["message"] for error in stream.errors] == [
            "The assistant has used its tools, but has not written an answer."
        ]
        assert calls_in(shared_database, thread_id) == [before]
        assert texts(again.items(thread_id))[-1] == "Done."


def test_a_deleted_message_takes_with_it_what_its_tools_said(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    with served(tmp_path, settings, build="approving:build_deleting") as client:
        thread_id = thread_id_of(client.create(looking("moon")))
        client.post_message(thread_id, looking("sea"))
        assert len(calls_in(shared_database, thread_id)) == 2
        first = client.items(thread_id)[0]["id"]
        client.events(
            "threads.custom_action", thread_id=thread_id, action={"type": "delete", "payload": {"item_id": first}}
        )
        assert [json.loads(call["arguments"]) for call in calls_in(shared_database, thread_id)] == [{"what": "sea"}]
        assert "4004" not in said(client.post_message(thread_id, RECALL))
        client.call("threads.delete", thread_id=thread_id)
        assert calls_in(shared_database, thread_id) == []


def test_a_stopped_turn_keeps_what_its_tools_have_said(
    tmp_path: Path, settings: dict[str, str], shared_database: URL
) -> None:
    steps = [[["look_up", '{"what": "moon"}']], [["recite_slowly", "{}"]]]
    with served(tmp_path, settings, build="approving:build_slow") as client:
        prompt = "SCRIPT " + json.dumps({"words": 1, "steps": steps, "note": new_user()})
        stream = client.stream("threads.create", input=message(prompt))
        eventually(lambda: "Recite slowly" in stream.answer)
        thread_id = stream.thread_id
        stream.disconnect()
        eventually(lambda: [turn["state"] for turn in turns(shared_database, thread_id)] == ["stopped"])
        # The call that was stopped has no output, and is not given without one.
        assert [call["name"] for call in calls_in(shared_database, thread_id)] == ["look_up"]
        assert "4004" in said(client.post_message(thread_id, RECALL))


def turns(database: URL, thread_id: str) -> list[dict[str, Any]]:
    return query(database, f"SELECT state FROM chat_turns WHERE session_id = '{session_uuid(thread_id)}'")


def test_long_outputs_are_cut_and_old_ones_left_out(
    tmp_path: Path, settings: dict[str, str], shared_database: URL, strict_model_server: ModelServer
) -> None:
    with served(
        tmp_path, settings, build="assistants:build_with_client_tools", CHAT_TOOL_MEMORY_TOKENS="2000"
    ) as client:
        tools = [["recite", json.dumps({"characters": 100_000})]]
        prompt = "SCRIPT " + json.dumps({"words": 1, "tools": tools, "note": new_user()})
        thread_id = thread_id_of(client.create(prompt))
        (call,) = calls_in(shared_database, thread_id)
        assert len(call["output"]) < 33_000
        for _ in range(6):
            client.post_message(thread_id, prompt)
        answer = said(client.post_message(thread_id, "what did recite say"))
        assert 2 <= answer.count("begin zzz") <= 4
        assert "characters are left out here" in answer
        assert len(json.dumps(strict_model_server.calls()[-1]["body"])) < 40_000


def test_memory_can_be_turned_off(tmp_path: Path, settings: dict[str, str], shared_database: URL) -> None:
    with served(tmp_path, settings, CHAT_TOOL_MEMORY_TOKENS="0") as client:
        thread_id = thread_id_of(client.create(looking("moon")))
        assert calls_in(shared_database, thread_id) == []
        assert said(client.post_message(thread_id, RECALL)) == "I do not know."


def test_what_a_handed_over_agent_and_a_refused_call_said(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL
) -> None:
    steps = [[["transfer_to_clerk", "{}"]], [["look_up", '{"what": "moon"}'], ["pay", '{"note": "none"}']]]
    with served(tmp_path, either_api, build="approving:build_with_handoff") as client:
        asked = Asked.by(client, "SCRIPT " + json.dumps({"steps": steps, "note": new_user()}))
        asked.answer(approve=False)
        assert "4004" in said(client.post_message(asked.thread_id, RECALL))
        assert "has refused" in said(client.post_message(asked.thread_id, "what did pay say"))
        assert [call["name"] for call in calls_in(shared_database, asked.thread_id)] == ["look_up", "pay"]


def test_a_client_tool_is_given_once(
    tmp_path: Path, either_api: dict[str, str], shared_database: URL, strict_model_server: ModelServer
) -> None:
    """It is an item of the thread, with the output of the page."""
    tools = [["ask_title", "{}"], ["echo", '{"words": "heard"}']]
    with served(tmp_path, either_api, build="assistants:build_with_client_tools") as client:
        prompt = "SCRIPT " + json.dumps({"words": 1, "tools": tools, "note": new_user()})
        thread_id = thread_id_of(client.create(prompt))
        client.events("threads.add_client_tool_output", thread_id=thread_id, result="The page")
        assert {call["name"] for call in calls_in(shared_database, thread_id)} == {"echo"}
        assert "heard" in said(client.post_message(thread_id, "what did echo say"))
        given = json.dumps(strict_model_server.calls()[-1]["body"])
        assert given.count("The page") == 1
