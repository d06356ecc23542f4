"""Processes that are killed."""

import random
import signal
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests.faults.harness import (
    Replica,
    Report,
    Witness,
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
from tests.support.processes import ModelServer, done_items, message


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
