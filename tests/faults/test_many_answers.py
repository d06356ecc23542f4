"""A process that is killed with many answers under way."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.conftest import query
from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    all_items,
    check_invariants,
    check_usable,
    new_user,
    replica,
    script,
    start,
)
from tests.support.model_script import user_texts
from tests.support.processes import ModelServer, eventually, message, texts

AT_ONCE = 200
STALE_SECONDS = 30


@pytest.fixture(scope="module")
def patient(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Replica]:
    """Takes no turn for dead whose process is only slow, as with two hundred beginnings at once on a busy machine."""
    yield from replica(
        tmp_path_factory.mktemp("patient"), shared_database, model_server, CHAT_TURN_STALE_SECONDS=str(STALE_SECONDS)
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_server_with_two_hundred_answers_loses_a_second_of_each(
    directory: Path, patient: Replica, shared_database: URL, model_server: ModelServer, record_property: Report
) -> None:
    server = start(directory, shared_database, model_server, CHAT_TURN_STALE_SECONDS=str(STALE_SECONDS))
    users, prompts = [new_user() for _ in range(AT_ONCE)], [script(words=3000, delay=0.25) for _ in range(AT_ONCE)]
    streams = [
        server.client(user).stream("threads.create", input=message(prompt))
        for user, prompt in zip(users, prompts, strict=True)
    ]
    for stream in streams:
        stream.wait_for_text(8)
        assert stream.seen.count(" ") >= 8, (
            f"the stream ended before it was to: {stream.status} {stream.answer[-2000:]}"
        )
    # What they have received a second before, and what a busy machine adds to that.
    seen = [stream.seen for stream in streams]
    time.sleep(1.2)
    server.process.stop(signal.SIGKILL)
    sent = {user_texts(call["body"]["messages"])[-1]: call["sent"] for call in model_server.calls()}

    def check(number: int) -> int:
        streams[number].wait()
        client, witness = patient.client(users[number]), Witness(users[number], streams[number].thread_id)
        witness.record(streams[number].events)
        # At once: nobody waits until the turn counts as dead.
        check_usable(witness, client)
        answers = [item for item in all_items(client, witness.thread_id) if item["type"] == "assistant_message"]
        pieces, kept = sent[prompts[number]], texts(answers)[0]
        assert kept.startswith(seen[number]), "INVARIANT: at most the last second is lost"
        assert "".join(piece for _, piece in pieces).startswith(kept)
        check_invariants(shared_database, witness, client, stale_seconds=STALE_SECONDS)
        return witness.acknowledged

    with ThreadPoolExecutor(8) as pool:
        record_property("acknowledged", sum(pool.map(check, range(AT_ONCE))))
    eventually(
        lambda: query(shared_database, "SELECT 1 FROM chat_partial_log LIMIT 1") == [], 60, "the logs are merged"
    )
