"""A workflow as Agent Builder exports it runs unchanged: with the history, streamed, and with its state."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.assistant.agent_builder import is_workflow
from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.agent_builder import EXPORT
from tests.support.model_script import user_texts
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, eventually, message, thread_id_of


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def process(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    model_server: ModelServer,
) -> Iterator[ChatProcess]:
    directory = tmp_path_factory.mktemp("workflow")
    (directory / "shop_workflow.py").write_text(EXPORT)
    settings = environment(shared_database, model_server) | {
        "CHAT_ASSISTANT": "shop_workflow:run_workflow",
        "CHAT_MODEL_API": request.param,
    }
    running = ChatProcess(directory, **settings).wait_until_ready()
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(process: ChatProcess) -> ChatClient:
    return ChatClient(process.base_url, mint(SECRET, new_user(), seconds=3600))


def calls_about(model: ModelServer, words: str) -> list[dict[str, Any]]:
    return [call["body"] for call in model.calls() if words in json.dumps(call["body"])]


def instructions_of(body: dict[str, Any]) -> str:
    return str(body.get("instructions") or body["messages"][0]["content"])


def words_of(client: ChatClient, thread_id: str) -> list[tuple[str, str]]:
    return [
        (item["type"], "".join(part["text"] for part in item.get("content", ()))) for item in client.items(thread_id)
    ]


def test_a_thread_goes_on_with_its_history_and_its_state(client: ChatClient, model_server: ModelServer) -> None:
    first, second = new_user(), new_user()
    created = client.create(first)
    thread_id = thread_id_of(created)
    # Streamed word by word, and saved as it was.
    deltas = [event for event in created if event["type"] == "thread.item.updated"]
    assert len(deltas) > 2
    client.post_message(thread_id, second)
    shown = words_of(client, thread_id)
    assert [kind for kind, _ in shown] == ["user_message", "assistant_message"] * 2
    assert "that is message 1 of yours" in shown[1][1]
    classified, answered = calls_about(model_server, second)
    assert first in json.dumps(classified)
    assert shown[1][1].split(",")[0] in json.dumps(answered)
    assert instructions_of(answered) == f"You are support, asked: turn 2, after {[first[:20], second[:20]]}"
    assert (answered["model"], classified["model"]) == ("gpt-4.1", "gpt-4.1")


def test_a_retry_begins_with_the_state_before_the_message(client: ChatClient, model_server: ModelServer) -> None:
    thread_id = thread_id_of(client.create(new_user()))
    words = new_user()
    client.post_message(thread_id, words)
    message_id = next(item["id"] for item in reversed(client.items(thread_id)) if item["type"] == "user_message")
    for _ in range(2):
        client.stream("threads.retry_after_item", thread_id=thread_id, item_id=message_id).wait()
    asked = [instructions_of(body) for body in calls_about(model_server, words)][1::2]
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert "turn 2" in asked[0]


def test_a_retry_of_an_older_message_forgets_what_came_after_it(client: ChatClient, model_server: ModelServer) -> None:
    first = new_user()
    thread_id = thread_id_of(client.create(first))
    message_id = client.items(thread_id)[0]["id"]
    for _ in range(2):
        client.post_message(thread_id, new_user())
    client.stream("threads.retry_after_item", thread_id=thread_id, item_id=message_id).wait()
    assert (
        instructions_of(calls_about(model_server, first)[-1]) == f"You are support, asked: turn 1, after {[first[:20]]}"
    )
    words = new_user()
    client.post_message(thread_id, words)
    assert "turn 2" in instructions_of(calls_about(model_server, words)[-1])


def test_an_empty_result_changes_no_state(client: ChatClient, model_server: ModelServer) -> None:
    thread_id = thread_id_of(client.create(new_user()))
    client.post_message(thread_id, "silent")
    words = new_user()
    client.post_message(thread_id, words)
    assert "turn 2" in instructions_of(calls_about(model_server, words)[-1])


def test_a_node_whose_failure_is_survived_leaves_nothing(client: ChatClient) -> None:
    script = "SCRIPT " + json.dumps({"words": 3, "then": "fail", "note": "survive" + new_user()})
    thread_id = thread_id_of(client.create(script))
    assert words_of(client, thread_id)[1:] == [("assistant_message", "Sorry.")]


def test_a_message_that_is_said_again_has_its_history_once(client: ChatClient, model_server: ModelServer) -> None:
    words = "as text " + new_user()
    thread_id = thread_id_of(client.create(words))
    client.post_message(thread_id, words)
    bodies = [call for call in calls_about(model_server, words) if "Sell." in instructions_of(call)]
    # Two nodes in each turn: by the text, and by the input of the node before.
    texts = [user_texts(body.get("input") or body["messages"]).count(words) for body in bodies]
    assert texts == [1, 1, 2, 2]


def test_another_thread_has_a_state_of_its_own(client: ChatClient, model_server: ModelServer) -> None:
    client.create(new_user())
    words = new_user()
    client.create(words)
    assert "turn 1" in instructions_of(calls_about(model_server, words)[-1])


def test_a_turn_that_fails_changes_no_state(
    client: ChatClient, process: ChatProcess, model_server: ModelServer
) -> None:
    thread_id = thread_id_of(client.create(new_user()))
    failed = client.events("threads.add_user_message", thread_id=thread_id, **message_of("explode"))
    assert failed[-1]["type"] == "error"
    assert "the workflow failed" not in json.dumps(failed)
    # The traceback names the line of the file.
    line = next(number for number, text in enumerate(EXPORT.splitlines(), 1) if "the workflow failed" in text)
    assert f"shop_workflow.py:{line}" in process.log or f'shop_workflow.py\\", line {line}' in process.log
    client.post_message(thread_id, "unkeepable")
    assert "workflow_state_not_kept" in process.log
    words = new_user()
    client.post_message(thread_id, words)
    assert "turn 2" in instructions_of(calls_about(model_server, words)[-1])


def message_of(text: str) -> dict[str, Any]:
    return {"input": message(text)}


def test_parallel_nodes_are_both_shown(client: ChatClient) -> None:
    items = done_items(client.create("parallel " + new_user()))
    assert [item["type"] for item in items if item["type"] != "end_of_turn"] == ["user_message"] + [
        "assistant_message"
    ] * 2


def test_a_result_without_words_of_an_agent_is_shown(client: ChatClient) -> None:
    words = "only json " + new_user()
    shown = words_of(client, thread_id_of(client.create(words)))
    assert json.loads(shown[-1][1])["category"].endswith(words)
    silent = client.create("silent")
    assert "error" in {event["type"] for event in silent}


def test_tools_of_agents_are_called_once(client: ChatClient, model_server: ModelServer) -> None:
    words = 'use the tool look_up {"order": "7"} ' + new_user()
    shown = words_of(client, thread_id_of(client.create(words)))
    assert shown[-1] == ("assistant_message", "The tool has answered.")
    assert "order 7 is on its way" in json.dumps(calls_about(model_server, words[-20:])[-1])
    assert client.get("/api/usage")["total"]["output_tokens"] == 150


def test_a_stopped_workflow_keeps_its_words_and_ends(client: ChatClient, process: ChatProcess) -> None:
    script = "SCRIPT " + json.dumps({"words": 400, "delay": 0.02, "note": new_user()})
    running = client.stream("threads.create", **message_of(script))
    running.wait_for_text(3)
    running.disconnect()
    thread_id = client.post("threads.list").json()["data"][0]["id"]
    eventually(lambda: words_of(client, thread_id)[-1][0] == "assistant_message", what="its words are saved")
    assert words_of(client, thread_id)[-1][1].startswith("w0 w1")


def test_functions_that_are_no_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others.py").write_text(
        "from pydantic import BaseModel\n"
        "class Input(BaseModel):\n  input_as_text: str\n"
        "class Other(BaseModel):\n  text: str\n"
        "async def good(given: Input): ...\n"
        "async def postponed(given: 'Input'): ...\n"
        "def plain(given: Input): ...\n"
        "async def other(given: Other): ...\n"
        "async def none(): ...\n"
        "async def two(given: Input, more): ...\n"
        "async def unknown(given: 'Missing'): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import others  # type: ignore[import-not-found] # noqa: PLC0415 - written above

    names = ["good", "postponed", "plain", "other", "none", "two", "unknown"]
    assert [name for name in names if is_workflow(getattr(others, name))] == ["good", "postponed"]
    del sys.modules["others"]
