"""An agent asks the browser: the answer is taken after a restart, and what was under way goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, Replica, environment, new_user, replica
from tests.support.model_script import is_tool_output
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, texts, thread_id_of


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_a_client_tool_is_answered_after_a_restart_and_its_workflow_goes_on(
    tmp_path: Path, database_url: URL, model_server: ModelServer, api: str
) -> None:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tool", "CHAT_MODEL_API": api}
    settings = environment(database_url, model_server) | own
    first = ChatProcess(tmp_path, **settings).wait_until_ready()
    token = mint(SECRET, "alice", seconds=600)
    created = ChatClient(first.base_url, token).create("use the tool look_at_page {}")
    thread_id = thread_id_of(created)
    assert [item["type"] for item in done_items(created)] == ["user_message", "assistant_message", "client_tool_call"]
    assert first.stop() == 0
    second = ChatProcess(tmp_path, **settings).wait_until_ready()
    try:
        client = ChatClient(second.base_url, token)
        before = client.items(thread_id)
        kinds = [item["type"] for item in before]
        assert sorted(kinds[:-1]) == ["assistant_message", "user_message", "workflow"]
        assert (before[3]["name"], before[3]["status"]) == ("get_page_title", "pending")
        answered = client.events("threads.add_client_tool_output", thread_id=thread_id, result={"title": "A page"})
        *continued, answer = done_items(answered)
        # The SDK takes up a workflow that stands right before the call. With chat completions the message may end
        # after the workflow has begun, and stand between them.
        if kinds[2] == "workflow":
            assert [(item["id"], item["type"]) for item in continued] == [(before[2]["id"], "workflow")]
        assert texts([answer]) == ["The tool has answered."]
        after = client.items(thread_id)
        assert [item["id"] for item in after[:4]] == [item["id"] for item in before]
        assert (after[3]["status"], after[3]["output"]) == ("completed", {"title": "A page"})
        # The model was given the call with its output.
        body = model_server.calls()[-1]["body"]
        assert '{"title": "A page"}' in str(body.get("messages") or body.get("input")).replace("\\\\", "")
        again = client.post("threads.add_client_tool_output", thread_id=thread_id, result={"title": "Another"})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
    finally:
        assert second.stop() == 0


TOOLS = {
    "two": [("ask_title", "{}"), ("ask_selection", '{"of": "page"}')],
    "the same twice": [("ask_selection", '{"of": "one"}'), ("ask_selection", '{"of": "two"}')],
    "three": [("ask_title", "{}"), ("ask_selection", '{"of": "one"}'), ("ask_selection", '{"of": "two"}')],
}
ASKED = {"ask_title": "get_page_title", "ask_selection": "get_selection"}


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def asking(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    strict_model_server: ModelServer,
) -> Iterator[Replica]:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools", "CHAT_MODEL_API": request.param}
    yield from replica(tmp_path_factory.mktemp("asking"), shared_database, strict_model_server, **own)


def calls_in(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in done_items(events) if item["type"] == "client_tool_call"]


@pytest.mark.parametrize("ids", [[], ["call_0"] * 3, [f"{number}" * 200 for number in range(3)]], ids=len)
@pytest.mark.parametrize("kind", TOOLS)
def test_several_client_tools_called_at_once_are_asked_one_after_the_other(
    asking: Replica, strict_model_server: ModelServer, kind: str, ids: list[str]
) -> None:
    tools = TOOLS[kind]
    client = asking.client(new_user())
    note = new_user()
    script = {"tools": tools, "note": note, "call_ids": ids[: len(tools)]}
    events = client.create("SCRIPT " + json.dumps(script))
    thread_id = thread_id_of(events)
    for number, (tool, arguments) in enumerate(tools):
        (call,) = calls_in(events)
        assert (call["name"], call["status"]) == (ASKED[tool], "pending")
        assert call["arguments"] == json.loads(arguments)
        events = client.events("threads.add_client_tool_output", thread_id=thread_id, result={"number": number})
    assert [error for error in events if error["type"] == "error"] == []
    assert texts(done_items(events)[-1:]) == ["Done."]
    kept = [item for item in client.items(thread_id) if item["type"] == "client_tool_call"]
    assert [item["output"] for item in kept] == [{"number": number} for number in range(len(tools))]
    sent = [call for call in strict_model_server.calls() if note in json.dumps(call["body"])]
    assert len(sent) == 2
    assert not any("refused" in call for call in sent)
    assert client.post("threads.add_client_tool_output", thread_id=thread_id, result={}).status_code == 409


def test_a_new_message_makes_the_calls_that_wait_void(asking: Replica) -> None:
    client = asking.client(new_user())
    events = client.create("SCRIPT " + json.dumps({"tools": TOOLS["three"], "note": new_user()}))
    thread_id = thread_id_of(events)
    assert calls_in(client.events("threads.add_client_tool_output", thread_id=thread_id, result={}))
    assert texts(done_items(client.post_message(thread_id, "Never mind."))[-1:])[0].startswith("You said 'Never mind.'")
    again = client.post_message(thread_id, "SCRIPT " + json.dumps({"tools": TOOLS["two"][:1], "note": new_user()}))
    assert [call["name"] for call in calls_in(again)] == ["get_page_title"]
    done = client.events("threads.add_client_tool_output", thread_id=thread_id, result={})
    assert calls_in(done) == []
    assert texts(done_items(done)[-1:]) == ["Done."]


@pytest.mark.parametrize("ids", [[], ["same", "same"], ["", ""], ["x" * 200, "y" * 65]], ids=str)
def test_calls_of_a_run_are_told_apart_whatever_ids_they_have(
    asking: Replica, strict_model_server: ModelServer, ids: list[str]
) -> None:
    client = asking.client(new_user())
    tools = [("echo", '{"words": "first"}'), ("echo", '{"words": "second"}')]
    note = new_user()
    script = {"tools": tools, "rounds": 3, "note": note, "call_ids": ids}
    assert texts(done_items(client.create("SCRIPT " + json.dumps(script)))[-1:]) == ["Done."]
    bodies = [call for call in strict_model_server.calls() if note in json.dumps(call["body"])]
    assert not any("refused" in call for call in bodies)
    last = bodies[-1]["body"]
    given = last.get("input") or last["messages"]
    outputs = [item.get("output") or item.get("content") for item in given if is_tool_output(item)]
    assert outputs == ["first", "second"] * 3
