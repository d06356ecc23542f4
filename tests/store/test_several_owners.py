"""Statements for several owners, of which some cannot be had: nodes of a cluster that are down, or do not respond."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import pytest

from chatkit_postgres.chat.turns.checkpoints import Checkpoints
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store import DatabaseStore, owners
from chatkit_postgres.store.owners import SeveralOwners
from chatkit_postgres.store.partials import Checkpoint, PartialItem
from chatkit_postgres.store.search_index import SearchIndex
from tests.chat.test_checkpoints import Answer, text_of
from tests.support.items import assistant_message
from tests.support.owners import run_apart
from tests.support.sql import Statements

OF_ALL = Statement("of_all", "SELECT CAST(:rows AS text) AS rows", rows="text")
OF_OWNER = Statement("of_owner", "SELECT CAST(:owner AS text) AS owner, CAST(:rows AS text) AS rows", rows="text")


def rows(*names: str) -> dict[str, list[dict[str, object]]]:
    return {"rows": [{"user_id": name, "number": number} for number, name in enumerate(names)]}


@pytest.fixture
def broken(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the statements of some owners fail, or never end."""
    run = Database.run
    failing: dict[str, str] = {}

    async def run_or_fail(self: Database, owner: str, statement: Statement, **parameters: Any) -> Sequence[Any]:
        match failing.get(owner):
            case "down":
                raise DatabaseUnavailable
            case "silent":
                await asyncio.sleep(60)
            case "wrong":
                raise asyncpg.DataError("one that is wrong itself")
        return await run(self, owner, statement, **parameters)

    monkeypatch.setattr(Database, "run", run_or_fail)
    run_apart(monkeypatch)
    monkeypatch.setattr(owners, "ROUND_SECONDS", 0.5)

    def break_them(**how: str) -> None:
        failing.clear()
        failing.update(how)

    return break_them


@pytest.mark.one_postgres
async def test_each_owner_gets_the_rows_that_are_theirs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    several = SeveralOwners(database)
    (together,) = (await several.run(OF_ALL, OF_OWNER, rows("alice", "bob", "alice"))).rows
    assert together["rows"].count("alice") == 2
    run_apart(monkeypatch)
    found = await several.run(OF_ALL, OF_OWNER, rows("alice", "bob", "alice"))
    assert {row["owner"]: row["rows"].count("user_id") for row in found.rows} == {"alice": 2, "bob": 1}
    assert all(row["rows"].count(row["owner"]) == row["rows"].count("user_id") for row in found.rows)


@pytest.mark.parametrize("how", ["down", "silent"])
async def test_owners_of_another_node_are_served_and_one_that_failed_is_left_out_for_a_while(
    database: Database, broken: Callable[..., None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    several = SeveralOwners(database)
    broken(bob=how)
    found = await several.run(OF_ALL, OF_OWNER, rows("alice", "bob", "carol"))
    assert {row["owner"] for row in found.rows} == {"alice", "carol"}
    assert found.missed == {"bob"}
    broken()
    seen = Statements(database)
    found = await several.run(OF_ALL, OF_OWNER, rows("alice", "bob"))
    assert found.missed == {"bob"}
    assert len(seen.names) == 1
    monkeypatch.setattr(owners, "LEFT_OUT_SECONDS", 0)
    assert (await several.run(OF_ALL, OF_OWNER, rows("alice", "bob"))).missed == set()


async def test_of_many_everybody_is_served_in_turn(
    database: Database, broken: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"user-{number}" for number in range(60)]
    run = Database.run

    async def run_slowly(*args: Any, **parameters: Any) -> Sequence[Any]:
        await asyncio.sleep(0.1)
        return await run(*args, **parameters)

    # Five at once, so that half of them are not reached in half a second.
    monkeypatch.setattr(Database, "run", run_slowly)
    several = SeveralOwners(database)
    # A machine that pauses makes somebody late.
    monkeypatch.setattr(owners, "LEFT_OUT_SECONDS", 0)
    served = Counter[str]()
    for _ in range(20):
        served.update(row["owner"] for row in (await several.run(OF_ALL, OF_OWNER, rows(*names))).rows)
        if len(served) == len(names):
            break
    assert len(served) == len(names)
    assert max(served.values()) <= 2


async def test_it_is_unavailable_if_it_is_so_for_all(database: Database, broken: Callable[..., None]) -> None:
    broken(alice="down", bob="down")
    with pytest.raises(DatabaseUnavailable):
        await SeveralOwners(database).run(OF_ALL, OF_OWNER, rows("alice", "bob"))
    broken(alice="wrong")
    with pytest.raises(asyncpg.DataError):
        await SeveralOwners(database).run(OF_ALL, OF_OWNER, rows("alice", "bob"))


@pytest.mark.one_postgres
async def test_a_database_that_has_become_a_cluster_is_asked_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await database.is_cluster()

    async def refuse(*_: object, **__: object) -> Sequence[Any]:
        run_apart(monkeypatch)
        raise asyncpg.FeatureNotSupportedError("could not run distributed query with FOR UPDATE/SHARE commands")

    monkeypatch.setattr(database, "run_for_several_owners", refuse)
    found = await SeveralOwners(database).run(OF_ALL, OF_OWNER, rows("alice", "bob"))
    assert {row["owner"] for row in found.rows} == {"alice", "bob"}


async def test_the_text_of_others_is_saved_once_while_a_node_is_down(
    store: DatabaseStore, broken: Callable[..., None]
) -> None:
    answers = [await Answer(number).open(store) for number in range(2)]
    checkpoints = Checkpoints(store.partials, heartbeat_seconds=1, observe_lag=lambda _: None)
    try:
        for answer in answers:
            answer.say()
            checkpoints.add(answer)
        await asyncio.sleep(1.2)
        broken(**{"user-1": "down"})
        for _ in range(4):
            for answer in answers:
                answer.say()
            await asyncio.sleep(0.6)
        assert await text_of(store, "user-0") == "w0 w1 w2 w3 w4 "
        assert answers[0].ended_for == answers[1].ended_for == []
        logged = await store.database.run_for_all_owners(
            Statement(
                "count_entries",
                "SELECT user_id, count(*) AS count, sum(length(text)) AS length FROM chat_partial_log GROUP BY user_id",
            )
        )
        # Nothing was written twice.
        assert {row["user_id"]: row["length"] for row in logged}["user-0"] == len("w1 w2 w3 w4 ")
        await store.live.request_stop("t", RequestContext("user-0"))
        await asyncio.sleep(0.8)
        assert answers[0].ended_for == [None]
    finally:
        broken()
        for answer in answers:
            await checkpoints.leave(answer)


async def test_items_of_others_are_saved_and_indexed_while_a_node_is_down(
    store: DatabaseStore, broken: Callable[..., None]
) -> None:
    answers = [await Answer(number).open(store) for number in range(2)]
    broken(**{"user-1": "down"})
    items = [PartialItem(answer.context, assistant_message("t", "b", "PEARL")) for answer in answers]
    assert await store.partials.save_items(items) == [True, False]
    appended = await store.partials.checkpoint([Checkpoint(answer.context) for answer in answers], with_heartbeat=True)
    assert (appended.lost, appended.missed) == ({}, {"user-1"})
    await store.database.run_for_all_owners(
        Statement("forget_entries", "UPDATE chat_messages SET search_words = NULL WHERE item_type = 'user_message'")
    )
    # It ends with those that are left.
    with pytest.raises(DatabaseUnavailable):
        await SearchIndex(store.database).fill()
    left = Statement("left", "SELECT DISTINCT user_id FROM chat_messages WHERE search_words IS NULL")
    assert [row["user_id"] for row in await store.database.run_for_all_owners(left)] == ["user-1"]
