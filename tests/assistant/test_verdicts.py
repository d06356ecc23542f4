"""Words that an output guardrail has not judged are not kept as an answer, however their turn ends."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.errors import OutputGuardrailTripped
from tests.conftest import query
from tests.faults.harness import Replica, new_user, script, start
from tests.support.processes import (
    ChatClient,
    ModelServer,
    Stream,
    done_items,
    eventually,
    message,
    texts,
    thread_id_of,
)

GUARDED = {"CHAT_ASSISTANT": "tests.support.assistants:build_guarded", "CHAT_TURN_STALE_SECONDS": "6"}


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def guarded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    model_server: ModelServer,
) -> Iterator[Replica]:
    directory = tmp_path_factory.mktemp("guarded")
    replica = start(directory, shared_database, model_server, **GUARDED, CHAT_MODEL_API=request.param)
    yield replica
    assert replica.process.stop() == 0


def slow(**more: Any) -> str:
    return script(words=300, delay=0.02, **more)


def asked(client: ChatClient, thread_id: str, words: str) -> Stream:
    stream = client.stream("threads.add_user_message", thread_id=thread_id, input=message(words))
    stream.wait_for_text(40)
    return stream


def is_over(replica: Replica, user: str) -> bool:
    running = f"SELECT 1 FROM chat_turns WHERE user_id = '{user}' AND state = 'running'"
    return query(replica.database, running) == []


def check_nothing_is_kept(replica: Replica, client: ChatClient, thread_id: str) -> None:
    kinds = [item["type"] for item in client.items(thread_id)]
    assert kinds == ["user_message", "assistant_message", "user_message"]
    # Nor does a model see it again.
    note = new_user()
    assert texts(done_items(client.post_message(thread_id, note))[-1:]) != [""]
    (call,) = [call for call in replica.model.calls() if note in json.dumps(call["body"])]
    assert "w10 " not in json.dumps(call["body"])


@pytest.mark.parametrize("words", [1, 40, 120])
def test_a_reader_that_leaves_before_the_verdict_leaves_no_answer(guarded: Replica, words: int) -> None:
    user = new_user()
    client = guarded.client(user)
    thread_id = thread_id_of(client.create("Hello"))
    stream = client.stream("threads.add_user_message", thread_id=thread_id, input=message(slow()))
    stream.wait_for_text(words)
    stream.disconnect()
    eventually(lambda: is_over(guarded, user))
    check_nothing_is_kept(guarded, client, thread_id)


def test_while_it_is_written_nobody_else_sees_it(guarded: Replica) -> None:
    client = guarded.client(new_user())
    thread_id = thread_id_of(client.create("Hello"))
    stream = asked(client, thread_id, script(words=150, delay=0.02))
    time.sleep(0.7)
    assert [item["type"] for item in client.items(thread_id)][-1] == "user_message"
    (_, answer) = done_items(stream.wait())
    assert client.items(thread_id)[-1] == answer
    assert texts([answer])[0].endswith("w149 ")


@pytest.mark.parametrize("then", ["cut", "fail", "close", "filter"])
def test_an_answer_that_breaks_off_before_the_verdict_is_not_kept(guarded: Replica, then: str) -> None:
    client = guarded.client(new_user())
    thread_id = thread_id_of(client.create("Hello"))
    stream = client.stream(
        "threads.add_user_message", thread_id=thread_id, input=message(script(words=40, delay=0.02, then=then))
    )
    assert len([event for event in stream.wait() if event["type"] == "error"]) == 1
    check_nothing_is_kept(guarded, client, thread_id)


def test_a_newer_message_leaves_no_answer_of_the_older_one(guarded: Replica) -> None:
    user = new_user()
    client = guarded.client(user)
    thread_id = thread_id_of(client.create("Hello"))
    stream = asked(client, thread_id, slow())
    newer = client.post_message(thread_id, "And now?")
    stream.wait()
    eventually(lambda: is_over(guarded, user))
    kinds = [item["type"] for item in client.items(thread_id)]
    assert kinds == ["user_message", "assistant_message", "user_message", "user_message", "assistant_message"]
    assert client.items(thread_id)[-1] == done_items(newer)[-1]


@pytest.mark.parametrize("ends", ["leaves", "trips"])
def test_a_retry_without_a_verdict_leaves_the_old_answer(guarded: Replica, ends: str) -> None:
    user = new_user()
    client = guarded.client(user)
    events = client.create("Hello")
    thread_id, question = thread_id_of(events), done_items(events)[0]["id"]
    before = client.items(thread_id)
    query(
        guarded.database,
        f"UPDATE chat_messages SET item = jsonb_set(item, '{{content,0,text}}', to_jsonb({_literal(ends)}::text))"
        f" WHERE user_id = '{user}' AND item_type = 'user_message'",
    )
    stream = client.stream("threads.retry_after_item", thread_id=thread_id, item_id=question)
    if ends == "leaves":
        stream.wait_for_text(40)
        stream.disconnect()
    else:
        assert [event["message"] for event in stream.wait() if event["type"] == "error"] == [
            OutputGuardrailTripped().message
        ]
    eventually(lambda: is_over(guarded, user))
    assert client.items(thread_id)[1:] == before[1:]


def _literal(ends: str) -> str:
    answer = slow() if ends == "leaves" else "SECRET"
    return "'" + answer.replace("'", "''") + "'"


def test_a_retry_with_a_verdict_replaces_the_old_answer(guarded: Replica) -> None:
    client = guarded.client(new_user())
    events = client.create("Hello")
    thread_id, question = thread_id_of(events), done_items(events)[0]["id"]
    again = client.events("threads.retry_after_item", thread_id=thread_id, item_id=question)
    assert [item["id"] for item in client.items(thread_id)] == [question, done_items(again)[-1]["id"]]


def test_a_process_that_dies_before_the_verdict_leaves_no_answer(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    first = start(tmp_path, shared_database, model_server, **GUARDED)
    user = new_user()
    client = first.client(user)
    thread_id = thread_id_of(client.create("Hello"))
    stream = asked(client, thread_id, slow())
    first.process.stop(signal.SIGKILL)
    stream.wait()
    second = start(tmp_path, shared_database, model_server, **GUARDED)
    check_nothing_is_kept(second, second.client(user), thread_id)
    eventually(lambda: is_over(second, user))
    drafts = query(shared_database, f"SELECT 1 FROM chat_messages WHERE user_id = '{user}' AND is_draft")
    assert drafts == []
    assert second.process.stop() == 0
