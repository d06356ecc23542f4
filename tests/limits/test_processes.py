"""Limits and budgets of users on several servers with one database, over sockets."""

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.conftest import query
from tests.faults.harness import SECRET, Replica, new_user, script, start
from tests.support.model_script import user_texts
from tests.support.processes import ChatClient, ModelServer, Stream, done_items, eventually, message

PER_MINUTE = 200
RESERVED = 4000
USED = 120
"""By each answer of the scripted model."""
LIMITS = {
    "CHAT_REQUESTS_PER_MINUTE": str(PER_MINUTE),
    "CHAT_TOKENS_PER_DAY": "1000000",
    "CHAT_TOKENS_PER_DAY_BY": f"plan:ten={10 * RESERVED},five={5 * RESERVED},none=0",
    "CHAT_TOKENS_RESERVED_PER_TURN": str(RESERVED),
    "CHAT_TURN_STALE_SECONDS": "6",
}


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[list[Replica]]:
    """Four; on the last one, a user may have two turns."""
    started: list[Replica] = []
    try:
        for turns in ("1000", "1000", "1000", "2"):
            more = LIMITS | {"CHAT_TURNS_PER_USER": turns}
            started.append(start(tmp_path_factory.mktemp("limits"), shared_database, model_server, **more))
        yield started
    finally:
        codes = [server.process.stop() for server in started]
    assert codes == [0] * 4


def client_of(server: Replica, user: str, plan: str = "") -> ChatClient:
    return ChatClient(server.process.base_url, mint(SECRET, user, seconds=3600, more={"plan": plan}))


def allowance(database: URL, user: str) -> dict[str, Any]:
    (row,) = query(database, f"SELECT turns, tokens_held, tokens_spent FROM chat_allowances WHERE user_id = '{user}'")
    return dict(row)


def model_runs(model: ModelServer, prompts: Sequence[str]) -> int:
    wanted = set(prompts)
    return sum(bool(wanted & set(user_texts(call["body"].get("messages", []))[-1:])) for call in model.calls())


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (9, 1, 1, 1)], ids=["evenly", "mostly one"])
def test_requests_are_limited_over_all_servers(servers: list[Replica], count: int, weights: Sequence[int]) -> None:
    user = new_user()
    clients = [client_of(server, user) for server in servers[:count]]
    order = [client for client, weight in zip(clients, weights, strict=False) for _ in range(weight)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda client: client.post("threads.list"), islice(cycle(order), PER_MINUTE * 2)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    assert abs(statuses[200] - PER_MINUTE) <= PER_MINUTE * 0.1, statuses
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert {refusal.json()["code"] for refusal in refusals} == {"too_many_requests"}
    assert all(1 <= int(refusal.headers["retry-after"]) <= 61 for refusal in refusals)
    # Nobody else waits.
    assert client_of(servers[0], new_user()).post("threads.list").status_code == 200


def hanging(client: ChatClient, prompt: str = "") -> Stream:
    return client.stream("threads.create", input=message(prompt or script(words=3, then="hang")))


def test_turns_are_limited_over_all_servers(servers: list[Replica], shared_database: URL) -> None:
    user = new_user()
    elsewhere, here = client_of(servers[0], user), client_of(servers[3], user)
    running = [hanging(elsewhere), hanging(elsewhere)]
    for stream in running:
        stream.wait_for_text()
    refused = here.post("threads.create", input=message("And this?"))
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_turns")
    assert len(here.call("threads.list")["data"]) == 2
    assert client_of(servers[3], new_user()).create("Hello")[-1]["type"] != "error"
    running.pop().disconnect()
    eventually(lambda: here.post("threads.create", input=message("Now?")).status_code == 200, 10)
    running.pop().disconnect()
    eventually(lambda: allowance(shared_database, user)["turns"] == 0, 10)


def test_a_user_who_stops_an_answer_may_write_at_once(servers: list[Replica]) -> None:
    client = client_of(servers[3], new_user())
    for _ in range(3):
        running = [hanging(client) for _ in range(2)]
        for stream in running:
            stream.wait_for_text()
            assert client.stop(stream.thread_id).json() == {"stopped": True}
            assert client.post("threads.create", input=message("Now?")).status_code == 200
        for stream in running:
            stream.wait()


@pytest.mark.timeout(240)
def test_a_hundred_turns_with_tokens_for_ten_are_ten_and_a_dead_server_gives_its_own_back(
    servers: list[Replica],
    shared_database: URL,
    model_server: ModelServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    user = new_user()
    more = LIMITS | {"CHAT_TURNS_PER_USER": "1000"}
    dying = start(tmp_path_factory.mktemp("dying"), shared_database, model_server, **more)
    clients = [client_of(server, user, "ten") for server in (*servers[:2], dying)]
    prompts = [script(words=3, then="hang") for _ in range(100)]
    streams = [hanging(client, prompt) for client, prompt in zip(cycle(clients), prompts, strict=False)]
    eventually(lambda: all(stream.status for stream in streams), 60, "all are answered")
    begun = [stream for stream in streams if stream.status == 200]
    refused = [stream for stream in streams if stream.status == 429]
    assert (len(begun), len(refused)) == (10, 90)
    for stream in begun:
        stream.wait_for_text()
    assert model_runs(model_server, prompts) == 10
    assert allowance(shared_database, user) == {"turns": 10, "tokens_held": 10 * RESERVED, "tokens_spent": 0}
    for stream in refused:
        stream.wait()
        answer = json.loads(stream.answer)
        assert answer["code"] == "budget_used_up"
    # What was refused is nowhere.
    for table in ("chat_sessions", "chat_turns"):
        assert query(shared_database, f"SELECT count(*) AS n FROM {table} WHERE user_id = '{user}'") == [{"n": 10}]
    dead = [stream for stream in begun if streams.index(stream) % 3 == 2]
    dying.process.stop(signal.SIGKILL)
    alive = 10 - len(dead)
    eventually(lambda: allowance(shared_database, user)["turns"] == alive, 40, "what the dead server held is free")
    assert allowance(shared_database, user) == {"turns": alive, "tokens_held": alive * RESERVED, "tokens_spent": 0}
    # For as many others.
    again = [hanging(clients[0]) for _ in range(len(dead) + 3)]
    eventually(lambda: all(stream.status for stream in again), 30)
    assert Counter(stream.status for stream in again) == Counter({200: len(dead), 429: 3})
    for stream in streams + again:
        stream.disconnect()
    # A model that was stopped before it said what it took has taken what was held.
    eventually(lambda: allowance(shared_database, user)["turns"] == 0, 30)
    assert allowance(shared_database, user)["tokens_held"] == 0
    assert allowance(shared_database, user)["tokens_spent"] == 10 * RESERVED


def test_a_budget_that_is_used_up_is_told_before_and_refused_then(
    servers: list[Replica], shared_database: URL, model_server: ModelServer
) -> None:
    user, budget = new_user(), 5 * RESERVED
    client, other = (client_of(server, user, "five") for server in servers[:2])
    assert client.get("/api/usage")["budget"] == {
        "tokens_per_day": budget,
        "spent": 0,
        "held": 0,
        "left": budget,
        "renewed_at": client.get("/api/usage")["budget"]["renewed_at"],
    }
    assert notices(client.create("Hello")) == []
    assert allowance(shared_database, user) == {"turns": 0, "tokens_held": 0, "tokens_spent": USED}
    spend(shared_database, user, budget * 8 // 10 - USED)
    told = [notices(each.create("Hello")) for each in (other, client)]
    assert told == [["You have used 80% of your tokens of today, and have 4,000 left."], []]
    # The rest is enough for one answer, though not for what is held of others.
    spend(shared_database, user, budget - 1)
    assert client.post("threads.create", input=message("The last one")).status_code == 200
    prompt = script(words=3)
    refused = client.post("threads.create", input=message(prompt))
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_used_up")
    assert refused.json()["message"] == "You have used up your tokens of today."
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    assert model_runs(model_server, [prompt]) == 0
    assert len(client.call("threads.list")["data"]) == 4
    left = other.get("/api/usage")["budget"]
    assert (left["spent"], left["held"], left["left"]) == (budget - 1 + USED, 0, 0)
    # Another plan, and none.
    assert client_of(servers[0], user, "ten").post("threads.create", input=message("Hello")).status_code == 200
    assert client_of(servers[0], new_user(), "none").post("threads.create", input=message("Hello")).status_code == 429


def test_an_answer_that_fails_or_is_refused_before_it_begins_holds_nothing(
    servers: list[Replica], shared_database: URL
) -> None:
    user = new_user()
    client = client_of(servers[0], user, "ten")
    assert client.post("threads.add_user_message", thread_id="thr_nowhere", input=message("?")).status_code == 404
    client.create(script(words=2, then="cut"))
    client.create(script(status=500))
    eventually(lambda: allowance(shared_database, user)["turns"] == 0, 10)
    # A model that refuses, or breaks off, and says no number takes nothing.
    assert allowance(shared_database, user) == {"turns": 0, "tokens_held": 0, "tokens_spent": 0}


def test_a_request_that_is_repeated_is_answered_also_if_nothing_is_left(
    servers: list[Replica], shared_database: URL
) -> None:
    user, key = new_user(), "a-key-of-this-request"
    here, elsewhere = (client_of(server, user, "five") for server in servers[:2])
    asked = message("Hello")
    first = here.stream("threads.create", key=key, input=asked).wait()
    spend(shared_database, user, 5 * RESERVED)
    for client in (here, elsewhere):
        assert client.post("threads.create", input=asked).status_code == 429
        again = client.stream("threads.create", key=key, input=asked)
        assert done_items(again.wait()) == done_items(first)
        assert again.status == 200


def spend(database: URL, user: str, tokens: int) -> None:
    query(database, f"UPDATE chat_allowances SET tokens_spent = {tokens} WHERE user_id = '{user}' RETURNING 1")


def notices(events: list[dict[str, Any]]) -> list[str]:
    return [event["message"] for event in events if event["type"] == "notice"]


def test_a_replica_that_counts_alone_asks_the_database_nothing(
    shared_database: URL, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    more = {"CHAT_SHARED_LIMITS": "false", "CHAT_REQUESTS_PER_MINUTE": "3"}
    alone = start(tmp_path_factory.mktemp("alone"), shared_database, model_server, **more)
    user = new_user()
    statuses = [client_of(alone, user).post("threads.list").status_code for _ in range(6)]
    assert alone.process.stop() == 0
    assert statuses.count(429) >= 2
    for table in ("chat_rates", "chat_allowances"):
        assert query(shared_database, f"SELECT 1 FROM {table} WHERE user_id = '{user}'") == []


def test_a_request_is_repeated_by_so_many_connections_and_no_more(servers: list[Replica]) -> None:
    """On a process that does not run its turn, each of them asks the database again and again."""
    user, asked = new_user(), message(script(words=3, then="hang"))
    here, elsewhere = client_of(servers[0], user), client_of(servers[1], user)
    first = here.stream("threads.create", key="same", input=asked)
    first.wait_for_text()
    repeated = [elsewhere.stream("threads.create", key="same", input=asked) for _ in range(21)]
    eventually(lambda: all(stream.status is not None for stream in repeated))
    assert Counter(stream.status for stream in repeated) == {200: 20, 429: 1}
    (refused,) = [json.loads(stream.answer) for stream in repeated if stream.status == 429]
    assert refused["code"] == "too_many_followers"
    here.stop(first.thread_id)
    for stream in repeated:
        stream.wait()
    # Each has given its place back.
    again = [elsewhere.stream("threads.create", key="same", input=asked) for _ in range(20)]
    assert [done_items(stream.wait())[0]["type"] for stream in again] == ["user_message"] * 20
