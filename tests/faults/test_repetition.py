"""The same request, output or answer several times at once, to two servers with one database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest
from sqlalchemy import URL

from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    all_items,
    call_of,
    check_invariants,
    new_user,
    script,
    start,
    state_of,
)
from tests.support.processes import ModelServer, done_items, eventually, message, texts


def test_equal_requests_under_one_key_are_one_turn(
    first: Replica, second: Replica, run: int, record_property: Report
) -> None:
    user, key = new_user(), new_user()
    clients = cycle([first.client(user), second.client(user)])
    prompt = script(words=30, delay=0.02, size=run)
    with ThreadPoolExecutor(10) as pool:
        streams = list(
            pool.map(lambda _: next(clients).stream("threads.create", key=key, input=message(prompt)), range(10))
        )
    for stream in streams:
        stream.wait()
    acknowledged_ids = {tuple(item["id"] for item in done_items(stream.events)) for stream in streams}
    assert len(acknowledged_ids) == 1, "INVARIANT: the same request is the same turn"
    assert [stream.errors for stream in streams] == [[]] * 10
    assert all(stream.events[0]["type"] == "thread.created" for stream in streams)
    call_of(first.model, prompt)
    assert len(next(clients).call("threads.list")["data"]) == 1
    witness = Witness(user, streams[0].thread_id)
    witness.record(streams[0].events)
    # Another request under the same key is a mistake, and the same one much later still the same turn.
    reused = next(clients).stream("threads.create", key=key, input=message("Something else"))
    reused.wait()
    assert reused.status == 422
    later = next(clients).stream("threads.create", key=key, input=message(prompt))
    assert done_items(later.wait()) == done_items(streams[0].events)
    check_invariants(first.database, witness, next(clients))
    record_property("acknowledged", witness.acknowledged)


def test_a_repeated_request_is_told_that_its_answer_was_stopped(
    first: Replica, second: Replica, run: int, record_property: Report
) -> None:
    user, key = new_user(), new_user()
    prompt = script(words=2000, delay=0.004, size=run)
    stream = first.client(user).stream("threads.create", key=key, input=message(prompt))
    stream.wait_for_text(20)
    stream.disconnect()
    eventually(lambda: state_of(first.database, user) == ["stopped"])
    for client in (first.client(user), second.client(user)):
        again = client.stream("threads.create", key=key, input=message(prompt))
        again.wait()
        assert [(error["message"], error["allow_retry"]) for error in again.errors] == [
            ("This answer was stopped before its end.", True)
        ]
        assert texts(done_items(again.events))[1].startswith(stream.seen), "INVARIANT: what was read is kept"
    witness = Witness(user, again.thread_id)
    witness.record(again.events)
    check_invariants(first.database, witness, first.client(user))
    record_property("acknowledged", witness.acknowledged)


@pytest.fixture(scope="module")
def asking(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[list[Replica]]:
    directory = tmp_path_factory.mktemp("asking")
    more = {"CHAT_ASSISTANT": "tests.support.assistants:AsksTheClient"}
    replicas = [start(directory, shared_database, model_server, **more) for _ in range(2)]
    yield replicas
    for each in replicas:
        assert each.process.stop() == 0


def test_of_four_outputs_at_once_one_is_taken_and_answered(
    asking: list[Replica], run: int, record_property: Report
) -> None:
    user = new_user()
    clients = [each.client(user) for each in asking]
    created = clients[0].stream("threads.create", input=message("Ask me")).wait()
    witness = Witness(user, created[0]["thread"]["id"])
    witness.record(created)
    streams = [
        clients[n % 2].stream("threads.add_client_tool_output", thread_id=witness.thread_id, result=f"output {n}")
        for n in range(4)
    ]
    for stream in streams:
        stream.wait()
    assert sorted(stream.status or 0 for stream in streams) == [200, 409, 409, 409]
    winner = next(n for n, stream in enumerate(streams) if stream.status == 200)
    assert texts(done_items(streams[winner].events)) == [f"Got output {winner}."]
    witness.record(streams[winner].events)
    call = next(item for item in all_items(clients[0], witness.thread_id) if item["type"] == "client_tool_call")
    assert (call["status"], call["output"]) == ("completed", f"output {winner}")
    # Four answers to the question, likewise.
    question = next(item for item in all_items(clients[0], witness.thread_id) if item["type"] == "structured_input")
    answers = {"thread_id": witness.thread_id, "item_id": question["id"]}
    streams = [
        clients[n % 2].stream(
            "threads.add_structured_input", **answers, input={"answers": {"why": {"values": [f"because {n}"]}}}
        )
        for n in range(4)
    ]
    for stream in streams:
        stream.wait()
    assert sorted(stream.status or 0 for stream in streams) == [200, 409, 409, 409]
    check_invariants(asking[0].database, witness, clients[0])
    record_property("acknowledged", witness.acknowledged)


def test_an_output_whose_answer_failed_can_be_given_again(asking: list[Replica], run: int) -> None:
    user = new_user()
    clients = [each.client(user) for each in asking]
    created = clients[0].stream("threads.create", input=message("Ask me")).wait()
    thread_id = created[0]["thread"]["id"]
    for client in clients:
        failed = client.stream("threads.add_client_tool_output", thread_id=thread_id, result="fail")
        failed.wait()
        assert [error["allow_retry"] for error in failed.errors] == [True]
    other = clients[0].post("threads.add_client_tool_output", thread_id=thread_id, result="something else")
    assert other.status_code == 409


def test_the_key_of_a_request_that_was_refused_is_free(first: Replica, run: int) -> None:
    user, key = new_user(), new_user()
    client = first.client(user)
    refused = client.stream("threads.add_user_message", key=key, thread_id="thr_nowhere", input=message("Hello"))
    refused.wait()
    assert refused.status == 404
    taken = client.stream("threads.create", key=key, input=message("Hello"))
    assert len(done_items(taken.wait())) == 2
