"""Processes that are killed."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.conftest import query
from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    all_items,
    call_of,
    check_invariants,
    check_usable,
    last_text,
    new_user,
    script,
    sent_by_model,
    start,
    state_of,
)
from tests.support.model_script import user_texts
from tests.support.processes import ModelServer, done_items, eventually, message, texts


def test_a_killed_server_loses_at_most_a_second_of_text(
    first: Replica,
    directory: Path,
    shared_database: URL,
    model_server: ModelServer,
    moment: random.Random,
    record_property: Report,
) -> None:
    user, key = new_user(), new_user()
    server = start(directory, shared_database, model_server, CHAT_TURN_STALE_SECONDS="2")
    client = server.client(user)
    witness = Witness(user, client.stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"])
    prompt = script(words=3000, delay=0.01)
    asked: dict[str, Any] = {"thread_id": witness.thread_id, "input": message(prompt)}
    stream = client.stream("threads.add_user_message", key=key, **asked)
    stream.wait_for_text()
    time.sleep(moment.uniform(0.1, 2.5))
    killed = time.time()
    server.process.stop(signal.SIGKILL)
    stream.wait()
    witness.record(stream.events)
    must_be_kept = sent_by_model(model_server, prompt, before=killed - 1)
    client = first.client(user)
    kept = last_text(client, witness.thread_id)
    if must_be_kept:
        assert kept.startswith(must_be_kept), "INVARIANT: at most the last second is lost"
        assert sent_by_model(model_server, prompt).startswith(kept)
    # The same request again, to another server, is the same turn; it ended with its process.
    replayed = client.stream("threads.add_user_message", key=key, **asked)
    replayed.wait()
    assert [error["allow_retry"] for error in replayed.errors] == [True]
    assert done_items(replayed.events)[0]["id"] == witness.acknowledged_ids[0][0]
    call_of(model_server, prompt)  # and the model was not asked twice
    check_usable(witness, client)
    check_invariants(shared_database, witness, client)
    assert "interrupted" in state_of(shared_database, user)
    record_property("acknowledged", witness.acknowledged)


AT_ONCE = 200


@pytest.mark.slow
def test_a_killed_server_with_two_hundred_answers_loses_a_second_of_each(
    directory: Path, first: Replica, shared_database: URL, model_server: ModelServer, record_property: Report
) -> None:
    server = start(directory, shared_database, model_server, CHAT_TURN_STALE_SECONDS="6")
    users, prompts = [new_user() for _ in range(AT_ONCE)], [script(words=3000, delay=0.25) for _ in range(AT_ONCE)]
    streams = [
        server.client(user).stream("threads.create", input=message(prompt))
        for user, prompt in zip(users, prompts, strict=True)
    ]
    for stream in streams:
        stream.wait_for_text(8)
    killed = time.time()
    server.process.stop(signal.SIGKILL)
    sent = {user_texts(call["body"]["messages"])[-1]: call["sent"] for call in model_server.calls()}

    def check(number: int) -> int:
        streams[number].wait()
        client, witness = first.client(users[number]), Witness(users[number], streams[number].thread_id)
        witness.record(streams[number].events)
        # At once: nobody waits until the turn counts as dead.
        check_usable(witness, client)
        answers = [item for item in all_items(client, witness.thread_id) if item["type"] == "assistant_message"]
        pieces, kept = sent[prompts[number]], texts(answers)[0]
        must_be_kept = "".join(piece for at, piece in pieces if at <= killed - 1)
        assert kept.startswith(must_be_kept), "INVARIANT: at most the last second is lost"
        assert "".join(piece for _, piece in pieces).startswith(kept)
        check_invariants(shared_database, witness, client)
        return witness.acknowledged

    with ThreadPoolExecutor(8) as pool:
        record_property("acknowledged", sum(pool.map(check, range(AT_ONCE))))
    eventually(
        lambda: query(shared_database, "SELECT 1 FROM chat_partial_log LIMIT 1") == [], 30, "the logs are merged"
    )
