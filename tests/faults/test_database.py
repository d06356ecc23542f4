"""A database that goes away and comes back."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkit_postgres.db import migrations
from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    check_invariants,
    check_usable,
    last_text,
    new_user,
    script,
    sent_by_model,
    start,
)
from tests.support.processes import ModelServer, done_items, eventually, http, message


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own") / "postgres", binaries=postgres_bin)
    migrations.upgrade(server.start())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def beside(
    own_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer
) -> Iterator[Replica]:
    directory = tmp_path_factory.mktemp("beside")
    more = {"CHAT_TURN_STALE_SECONDS": "2", "CHAT_DATABASE_POOL_SIZE": "3"}
    started = start(directory, own_postgres.url, model_server, **more)
    yield started
    assert started.process.stop() == 0


def test_an_immediate_restart_loses_nothing_that_was_acknowledged(
    own_postgres: EmbeddedPostgres, beside: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    client = beside.client(user)
    witness = Witness(user, client.stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"])
    prompt = script(words=moment.randrange(50, 300), delay=0.01)
    stream = client.stream("threads.add_user_message", thread_id=witness.thread_id, input=message(prompt))
    stream.wait_for_text()
    time.sleep(moment.random() * 2)
    pid_file = own_postgres.cluster / "postmaster.pid"
    postmaster = pid_file.read_text().splitlines()[0]
    os.kill(int(postmaster), signal.SIGQUIT)  # what pg_ctl stop -m immediate sends
    stream.wait()
    # Or the one that is about to go would be found to be ready.
    eventually(lambda: pid_file.exists() and pid_file.read_text().splitlines()[:1] not in ([], [postmaster]))
    assert len(stream.errors) <= 1
    witness.record(stream.events)
    beside.process.wait_until_ready()
    if stream.errors:
        assert sent_by_model(beside.model, prompt).startswith(last_text(client, witness.thread_id))
    else:
        assert len(done_items(stream.events)) == 2
    check_usable(witness, client)
    check_invariants(beside.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_without_a_database_requests_are_told_to_come_back_and_service_resumes(
    own_postgres: EmbeddedPostgres, beside: Replica, run: int
) -> None:
    user = new_user()
    client = beside.client(user)
    thread_id = client.stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"]
    own_postgres.stop()
    try:
        for response in (
            client.post("threads.list"),
            client.post("threads.create", input=message("Hello")),
            client.post("threads.add_user_message", thread_id=thread_id, input=message("Hello")),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
            assert int(response.headers["retry-after"]) > 0
        assert http.get(f"{beside.process.base_url}/health/ready").status_code == 503
        assert http.get(f"{beside.process.base_url}/health/live").status_code == 200
    finally:
        own_postgres.start()
    witness = Witness(user, thread_id)
    eventually(lambda: client.post("threads.list").status_code == 200)
    check_usable(witness, client)
    check_invariants(beside.database, witness, client)


def test_no_connection_is_held_while_models_talk_and_clients_read(beside: Replica, run: int) -> None:
    """Three connections, twelve streams whose models hang: everybody else is served."""
    user = new_user()
    client = beside.client(user)
    streams = [client.stream("threads.create", input=message(script(words=2, then="hang"))) for _ in range(12)]
    for stream in streams:
        stream.wait_for_text(2)
    other = beside.client(new_user())
    assert len(done_items(other.create("Hello"))) == 2
    eventually(lambda: beside.metric("chatkit_database_connections_in_use") == 0)
    assert beside.metric("chatkit_running_turns") == 12
    for stream in streams:
        stream.disconnect()
    eventually(lambda: beside.metric("chatkit_running_turns") == 0)
