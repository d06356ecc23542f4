"""A running turn, followed and stopped from any process; and pages that are reloaded in the middle of an answer."""

import json
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path

import pytest

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.errors import Interrupted
from tests.faults.harness import (
    SECRET,
    Replica,
    Report,
    Witness,
    check_invariants,
    check_usable,
    last_text,
    model_stopped,
    new_user,
    script,
    sent_by_model,
    start,
    state_of,
)
from tests.support.failover import RoundRobin
from tests.support.processes import ChatClient, Event, done_items, eventually, http, message, texts

CREATE = json.dumps({"type": "threads.create", "params": {"input": message("Hello")}}).encode()
RELOADS = 100
WORDS = 60


@pytest.fixture(scope="module")
def balanced(first: Replica, second: Replica) -> Iterator[RoundRobin]:
    proxy = RoundRobin(*(replica.process.port for replica in (first, second)))
    yield proxy
    proxy.close()


def shown(events: list[Event]) -> str:
    """The text of the assistant's newest message, as a page shows it that receives these events."""
    shown: dict[str, str] = {}
    for event in events:
        match event["type"]:
            case "thread.item.added" | "thread.item.done" | "thread.item.replaced":
                if event["item"]["type"] == "assistant_message":
                    shown[event["item"]["id"]] = texts([event["item"]])[0]
            case "thread.item.updated" if event["update"]["type"].endswith("text_delta"):
                shown[event["item_id"]] += event["update"]["delta"]
            case "thread.item.removed":
                shown.pop(event["item_id"], None)
    return [*shown.values()][-1] if shown else ""


def whole(words: int) -> str:
    return "".join(f"w{number} " for number in range(words))


def test_a_hundred_reloads_lose_nothing(balanced: RoundRobin, first: Replica, record_property: Report) -> None:
    def reload(number: int) -> int:
        moment = random.Random(f"reload {number}")
        user = new_user()
        client = ChatClient(f"http://127.0.0.1:{balanced.port}", mint(SECRET, user, seconds=3600))
        prompt = script(words=WORDS, delay=0.04)
        stream = client.stream("threads.create", on_disconnect="finish", input=message(prompt))
        stream.wait_for_text(moment.randrange(1, WORDS))
        stream.disconnect()
        seen, witness = stream.seen, Witness(user, stream.thread_id)
        witness.record(stream.events)
        # As long as a page takes to load.
        time.sleep(moment.uniform(0.2, 0.5))
        listed = last_text(client, witness.thread_id)
        follower = client.follow(witness.thread_id)
        follower.wait()
        assert follower.status in {200, 204}
        witness.record(follower.events)
        if follower.status == 200:
            assert follower.errors == []
            states = [shown(list(follower.events[:count])) for count in range(1, len(follower.events) + 1)]
            growing = [state for state in states if state]
            assert all(after.startswith(before) for before, after in pairwise(growing))
            assert growing[0].startswith(listed), "what was listed is followed"
            assert growing[-1] == whole(WORDS), "INVARIANT: a follower ends with the same text"
        kept = last_text(client, witness.thread_id)
        assert kept == whole(WORDS), "INVARIANT: the answer is whole on the next visit"
        assert listed.startswith(seen), "INVARIANT: after a reload, the text is no shorter than what had been seen"
        assert state_of(first.database, user) == ["completed"]
        check_invariants(first.database, witness, client)
        return witness.acknowledged

    with ThreadPoolExecutor(10) as pool:
        record_property("acknowledged", sum(pool.map(reload, range(RELOADS))))


def test_a_stop_reaches_the_other_process_within_a_second(
    first: Replica, second: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    here, there = (replica.client(user) for replica in moment.sample([first, second], 2))
    is_silent = moment.random() < 0.5
    prompt = script(words=20, then="hang") if is_silent else script(words=5000, delay=0.01)
    stream = here.stream("threads.create", on_disconnect=moment.choice(["finish", "stop"]), input=message(prompt))
    stream.wait_for_text(10)
    witness = Witness(user, stream.thread_id)
    follower = there.follow(witness.thread_id)
    eventually(lambda: shown(follower.events) != "")
    asked_at = time.monotonic()
    assert there.stop(witness.thread_id).json() == {"stopped": True}
    stopped_in = time.monotonic() - asked_at
    model_stopped(first.model, prompt, within=5)
    stream.wait(5)
    follower.wait(5)
    print(f"acknowledged after {stopped_in:.2f} s, ended after {time.monotonic() - asked_at:.2f} s")  # noqa: T201
    witness.record(stream.events)
    assert (stream.errors, follower.errors, state_of(first.database, user)) == ([], [], ["stopped"])
    kept = last_text(here, witness.thread_id)
    assert kept.startswith(stream.seen), "INVARIANT: what was read is kept"
    assert shown(follower.events) == kept, "INVARIANT: a follower ends with the same text"
    assert sent_by_model(first.model, prompt).startswith(kept)
    assert there.stop(witness.thread_id).json() == {"stopped": False}
    assert there.follow(witness.thread_id).wait() == []
    check_usable(witness, there)
    check_invariants(first.database, witness, here)
    record_property("acknowledged", witness.acknowledged)


def test_a_follower_is_at_most_a_second_behind(first: Replica, second: Replica) -> None:
    user = new_user()
    stream = first.client(user).stream("threads.create", input=message(script(words=200, delay=0.02)))
    stream.wait_for_text(5)
    follower = second.client(user).follow(stream.thread_id)
    delays = []
    for words in accumulate([30] * 5):
        eventually(lambda words=words: stream.seen.count(" ") >= words)  # type: ignore[misc]
        seen, at = stream.seen, time.monotonic()
        eventually(lambda seen=seen: shown(follower.events).startswith(seen))  # type: ignore[misc]
        delays.append(time.monotonic() - at)
    follower.wait()
    stream.wait()
    print(f"behind by {[round(delay, 2) for delay in delays]}")  # noqa: T201 - for people who look
    # A second, and what two busy cores add to it.
    assert sorted(delays)[2] < 1.2
    assert shown(follower.events) == whole(200) == texts(done_items(stream.events)[1:])[0]


@pytest.mark.parametrize("on_disconnect", ["finish", None])
def test_a_turn_outlives_its_reader_only_if_it_is_asked_to(first: Replica, on_disconnect: str | None) -> None:
    user = new_user()
    client = first.client(user)
    prompt = script(words=40, delay=0.05)
    stream = client.stream("threads.create", on_disconnect=on_disconnect, input=message(prompt))
    stream.wait_for_text(3)
    stream.disconnect()
    wanted = "completed" if on_disconnect else "stopped"
    eventually(lambda: state_of(first.database, user) == [wanted])
    assert (last_text(client, stream.thread_id) == whole(40)) is (on_disconnect == "finish")


def test_a_follower_hears_that_its_process_died(
    directory: Path, first: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    server = start(directory, first.database, first.model)
    stream = server.client(user).stream("threads.create", input=message(script(words=3000, delay=0.01)))
    stream.wait_for_text(moment.randrange(20, 100))
    follower = first.client(user).follow(stream.thread_id)
    eventually(lambda: shown(follower.events) != "")
    server.process.stop(signal.SIGKILL)
    stream.wait()
    # Another process closes the turn, and makes the partial message whole.
    follower.wait()
    assert [error["message"] for error in follower.errors] == [Interrupted.sentence]
    client, witness = first.client(user), Witness(user, stream.thread_id)
    witness.record(stream.events)
    assert shown(follower.events) == last_text(client, witness.thread_id), (
        "INVARIANT: a follower ends with the same text"
    )
    check_usable(witness, client)
    check_invariants(first.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_what_is_no_ordinary_request_for_a_turn_has_its_own_answer(first: Replica) -> None:
    user = new_user()
    client = first.client(user)
    stream = client.stream("threads.create", input=message(script(words=2000, delay=0.01)))
    stream.wait_for_text(2)
    live = f"{first.process.base_url}/api/threads/{stream.thread_id}/live"
    # Not before the turn ends: the headers are all that HEAD asks for.
    head = http.head(live, headers=client.headers, timeout=5)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert http.post(live, headers=client.headers).status_code == 405
    followers = [client.follow(stream.thread_id) for _ in range(20)]
    eventually(lambda: all(follower.status == 200 for follower in followers))
    refused = http.get(live, headers=client.headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_followers")
    assert client.stop(stream.thread_id).json() == {"stopped": True}
    for follower in followers:
        follower.wait()
    eventually(lambda: first.metric("chatkit_followers") == 0)
    for header in ("", "Finish", "finish, stop"):
        wrong = client.send_raw(CREATE, **{"Chat-On-Disconnect": header})
        assert (wrong.status_code, wrong.json()["code"]) == (400, "bad_request")
    assert len(state_of(first.database, user)) == 1
