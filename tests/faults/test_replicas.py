"""Two servers with one database."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from tests.conftest import query
from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    all_items,
    check_invariants,
    check_usable,
    model_stopped,
    new_user,
    script,
    sent_by_model,
)
from tests.support.processes import done_items, eventually, message, texts


def test_a_newer_message_on_another_replica_ends_the_older_answer(
    first: Replica, second: Replica, moment: random.Random, record_property: Report
) -> None:
    assert first.process.process.pid != second.process.process.pid
    user = new_user()
    # The older answer on the server with the usual heartbeats, the newer on that one or the other.
    older, newer = second.client(user), moment.choice([first, second]).client(user)
    witness = Witness(user, older.stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"])
    silent = moment.random() < 0.3
    prompt = script(words=3, then="hang") if silent else script(words=5000, delay=0.01)
    old = older.stream("threads.add_user_message", thread_id=witness.thread_id, input=message(prompt))
    old.wait_for_text(2)
    # Text that is younger than the first checkpoint is not kept once the thread is taken over.
    time.sleep(0.4 + moment.random())
    new = newer.stream("threads.add_user_message", thread_id=witness.thread_id, input=message("The newer one"))
    new.wait()
    model_stopped(first.model, prompt, within=15 if silent else 5)
    old.wait()
    assert [error["allow_retry"] for error in old.errors] == [False], "INVARIANT: the loser gets one error"
    assert new.errors == []
    for stream in (old, new):
        witness.record(stream.events)
    kept = [item for item in all_items(newer, witness.thread_id) if item["type"] == "assistant_message"]
    partial = next(text for text in texts(kept) if text.startswith("w0 "))
    assert partial.startswith(old.seen), "INVARIANT: what was read is kept"
    assert sent_by_model(first.model, prompt).startswith(partial)
    check_usable(witness, newer)
    check_invariants(first.database, witness, newer)
    record_property("acknowledged", witness.acknowledged)


def test_fifty_writers_on_one_thread_are_all_kept_and_one_is_answered(
    first: Replica, second: Replica, run: int, record_property: Report
) -> None:
    user = new_user()
    clients = cycle([first.client(user), second.client(user)])
    witness = Witness(user, next(clients).stream("threads.create", input=message("Hello")).wait()[0]["thread"]["id"])
    streams = [
        next(clients).stream(
            "threads.add_user_message",
            thread_id=witness.thread_id,
            input=message(script(words=20, delay=0.02 + n / 1e5)),
        )
        for n in range(50)
    ]
    for stream in streams:
        witness.record(stream.wait())
        assert stream.status == 200
        assert [error["allow_retry"] for error in stream.errors] in ([], [False])
    users = [item for item in all_items(next(clients), witness.thread_id) if item["type"] == "user_message"]
    assert len(users) == 51
    states = query(first.database, f"SELECT state, count(*) AS n FROM chat_turns WHERE user_id = '{user}' GROUP BY 1")
    counts = {row["state"]: row["n"] for row in states}
    assert set(counts) <= {"completed", "superseded"}
    check_usable(witness, next(clients))
    check_invariants(first.database, witness, next(clients))
    record_property("acknowledged", witness.acknowledged)


def test_retry_message_rename_and_delete_interleaved_leave_a_thread_in_order(
    first: Replica, second: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    clients = [first.client(user), second.client(user)]
    created = clients[0].stream("threads.create", input=message("Hello")).wait()
    thread_id, question = created[0]["thread"]["id"], done_items(created)[0]["id"]
    witness = Witness(user, thread_id)
    deletes = moment.random() < 0.3

    def act(number: int) -> int | None:
        client = clients[number % 2]
        what = moment.choice(["retry", "message", "message", "rename"])
        if deletes and number == 11:
            return client.post("threads.delete", thread_id=thread_id).status_code
        if what == "rename":
            return client.post("threads.update", thread_id=thread_id, title=f"Title {number}").status_code
        if what == "retry":
            stream = client.stream("threads.retry_after_item", thread_id=thread_id, item_id=question)
        else:
            prompt = script(words=moment.randrange(1, 30), delay=0.005)
            stream = client.stream("threads.add_user_message", thread_id=thread_id, input=message(prompt))
        if moment.random() < 0.3:
            time.sleep(moment.random() / 10)
            stream.disconnect()
        else:
            stream.wait()
        return stream.status

    with ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(act, range(16)))
    assert statuses <= {200, 404, None}, statuses
    if deletes:
        assert clients[0].post("threads.get_by_id", thread_id=thread_id).status_code == 404
        leftover = f"SELECT item_id FROM chat_messages WHERE user_id = '{user}'"
        eventually(lambda: query(first.database, leftover) == [])
    else:
        check_usable(witness, clients[0])
        check_invariants(first.database, witness, clients[1])
    record_property("acknowledged", witness.acknowledged)
