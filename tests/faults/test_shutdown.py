"""Processes that are told to go."""

import signal
from pathlib import Path

from sqlalchemy import URL

from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    check_invariants,
    check_usable,
    last_text,
    new_user,
    script,
    start,
    state_of,
)
from tests.support.processes import ModelServer, done_items, eventually, http, message, texts


def test_sigterm_lets_answers_end_and_saves_the_rest(
    first: Replica,
    directory: Path,
    shared_database: URL,
    model_server: ModelServer,
    run: int,
    record_property: Report,
) -> None:
    how = ("serve", "workers", "uvicorn")[run % 3]
    arguments = {
        "serve": (),
        "workers": ("--workers", "2"),
        "uvicorn": ("uvicorn", "--factory", "app.main:create_app"),
    }[how]
    # With the heartbeats that the other server expects: it takes whoever is silent for longer for dead.
    own = {"CHAT_DRAIN_SECONDS": "4", "CHAT_TURN_STALE_SECONDS": "6"}
    server = start(directory, shared_database, model_server, *arguments, **own)
    users = [new_user(), new_user()]
    clients = [server.client(user) for user in users]
    quick = clients[0].stream("threads.create", input=message(script(words=60, delay=0.02)))
    slow_text = script(words=5000, delay=0.02)
    slow = clients[1].stream("threads.create", input=message(slow_text))
    quick.wait_for_text(5)
    slow.wait_for_text(5)
    server.process.process.send_signal(signal.SIGTERM)
    if how != "workers":
        eventually(lambda: http.get(f"{server.process.base_url}/health/ready").status_code == 503, 3)
        refused = clients[0].post("threads.create", input=message("Too late"))
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
    quick.wait(30)
    slow.wait(30)
    assert server.process.stop() == (0 if how != "uvicorn" else server.process.process.returncode)
    assert quick.errors == []
    assert len(done_items(quick.events)) == 2
    assert [error["allow_retry"] for error in slow.errors] == [True]
    assert not slow.broke
    assert texts(done_items(quick.events))[1].startswith("w0 ")
    for user, stream in zip(users, (quick, slow), strict=True):
        client = first.client(user)
        witness = Witness(user, stream.thread_id)
        witness.record(stream.events)
        assert last_text(client, stream.thread_id).startswith(stream.seen), "INVARIANT: what was read is kept"
        check_usable(witness, client)
        check_invariants(shared_database, witness, client)
    assert state_of(shared_database, users[1])[0] == "interrupted"
    record_property("acknowledged", witness.acknowledged)
