"""Models that fail, hang, or break off in the middle of a word."""

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    check_invariants,
    check_usable,
    last_text,
    new_user,
    replica,
    script,
    state_of,
)
from tests.support.processes import ModelServer, message


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Replica]:
    yield from replica(tmp_path_factory.mktemp("impatient"), shared_database, model_server, CHAT_TURN_SECONDS="3")


@pytest.mark.parametrize("fault", ["cut", "fail", "hang", "500"])
def test_what_the_model_said_before_it_failed_is_kept(
    impatient: Replica, fault: str, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    client = impatient.client(user)
    words = 0 if fault == "500" else moment.randrange(1, 40)
    stream = client.stream("threads.create", input=message(script(words=words, delay=0.01, then=fault)))
    stream.wait()
    assert not stream.broke, "the stream ends cleanly"
    assert [error["allow_retry"] for error in stream.errors] == [True], "INVARIANT: exactly one truthful error"
    assert state_of(impatient.database, user) == ["failed"]
    witness = Witness(user, stream.thread_id)
    witness.record(stream.events)
    assert last_text(client, witness.thread_id) == stream.seen
    # When the model's stream breaks, the Agents SDK drops what it has not handed on yet.
    assert stream.seen.count(" ") == words or fault in {"cut", "fail"}
    check_usable(witness, client)
    check_invariants(impatient.database, witness, client)
    record_property("acknowledged", witness.acknowledged)
