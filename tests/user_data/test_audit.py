"""The audit log: a chain that many processes write, in which no change is unnoticed, and that outlives an erasure."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, text

from chatkit_postgres.attachments.storage import NoStorage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.db.tables import metadata
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.user_data.audit import Audit, BrokenChainError, Head, Look
from chatkit_postgres.user_data.erasure import Erasure
from tests.support.items import thread
from tests.support.sql import sql_connection

KEY = "k" * 40
LOOKS = (
    Look("sam", "http", "threads.list", "alice"),
    Look("sam", "http", "thread.show", "alice", "thr_alice"),
    Look("root", "command", "feedback"),
    Look("root", "command", "thread.show", "nobody", "thr_\x00\ud800" + "x" * 400),
    Look("alice", "http", "user.show", "bob"),
)


@pytest.fixture
async def store(database_url: URL) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore(Database(database_url))
    for user in ("alice", "bob"):
        await opened.save_thread(thread(f"thr_{user}"), RequestContext(user))
    yield opened
    await opened.close()


async def change(store: DatabaseStore, statement: str, **values: object) -> None:
    async with sql_connection(store.database) as connection:
        await connection.execute(text(statement), values)
        await connection.commit()


async def test_who_whose_what_and_when(store: DatabaseStore) -> None:
    audit = Audit(store.database, KEY)
    for look in LOOKS:
        await audit.record(look)
    head = await audit.verify()
    rows = [row async for row in audit.entries()]
    assert (head.sequence, head.hash) == (5, rows[-1]["hash"])
    assert [(row["actor"], row["via"], row["action"], row["subject"], row["thread_id"]) for row in rows] == [
        ("sam", "http", "threads.list", "alice", None),
        ("sam", "http", "thread.show", "alice", "thr_alice"),
        ("root", "command", "feedback", None, None),
        # Nobody of this name is here: it may be the name of somebody who was erased.
        ("root", "command", "thread.show", None, None),
        ("alice", "http", "user.show", "bob", None),
    ]
    assert [row["sequence"] async for row in audit.entries("alice")] == [1, 2]
    assert [row["sequence"] async for row in audit.entries("nobody")] == [4]


async def test_a_thread_of_somebody_else_is_not_named(store: DatabaseStore) -> None:
    audit = Audit(store.database, KEY)
    await audit.record(Look("sam", "http", "thread.show", "alice", "thr_bob"))
    (row,) = [row async for row in audit.entries()]
    assert (row["subject"], row["thread_id"], len(row["thread_hash"])) == ("alice", None, 64)
    await audit.verify()


@pytest.mark.parametrize("column", ["actor", "subject", "thread_id"])
@pytest.mark.parametrize("sequence", [2, 3])
async def test_a_name_that_was_removed_without_an_erasure_is_noticed(
    store: DatabaseStore, column: str, sequence: int
) -> None:
    audit = Audit(store.database, KEY)
    for look in LOOKS:
        await audit.record(look)
    await change(store, f"UPDATE chat_audit SET {column} = NULL WHERE sequence = :n", n=sequence)
    if sequence == 3 and column != "actor":
        # It has never had one.
        await audit.verify()
        return
    with pytest.raises(BrokenChainError):
        await audit.verify()


async def test_a_name_that_is_put_where_there_was_none_is_noticed(store: DatabaseStore) -> None:
    audit = Audit(store.database, KEY)
    await audit.record(Look("sam", "http", "thread.show", "nobody", "thr_alice"))
    for column, value in (("subject", "nobody"), ("thread_id", "thr_alice")):
        await change(store, f"UPDATE chat_audit SET {column} = :v", v=value)
        with pytest.raises(BrokenChainError):
            await audit.verify()
        await change(store, f"UPDATE chat_audit SET {column} = NULL")
    await audit.verify()


async def test_staff_who_were_erased_are_unnamed_again_after_a_restore(store: DatabaseStore) -> None:
    audit, erasure = Audit(store.database, KEY), Erasure(store.database, NoStorage(), KEY, wait_seconds=0)
    await audit.record(Look("sam", "http", "threads.list", "alice"))
    receipt = await erasure.erase("sam")
    assert receipt.unnamed_entries == 1
    # As a backup from before has it, which knows the tombstone from the storage.
    await change(store, "DELETE FROM chat_audit WHERE sequence > 1")
    await change(store, "UPDATE chat_audit SET actor = 'sam'")
    assert [found async for found in erasure.erase_again()] == []
    rows = [row async for row in audit.entries()]
    assert [(row["actor"], row["action"]) for row in rows] == [(None, "threads.list"), ("operator", "user.erase")]
    await audit.verify()


@pytest.mark.parametrize("column", [column.name for column in metadata.tables["chat_audit"].columns])
async def test_no_change_is_unnoticed(store: DatabaseStore, column: str) -> None:
    audit = Audit(store.database, KEY)
    for look in LOOKS:
        await audit.record(look)
    changed = {"sequence": "sequence + 10", "at": "at + interval '1 microsecond'", "via": "'command'"}
    value = changed.get(column, f"COALESCE({column}, '') || 'x'")
    for number in (1, 2, 5):
        await change(store, "CREATE TABLE kept AS SELECT * FROM chat_audit")
        await change(store, f"UPDATE chat_audit SET {column} = {value} WHERE sequence = :n", n=number)
        with pytest.raises(BrokenChainError):
            await audit.verify()
        await change(store, "DELETE FROM chat_audit")
        await change(store, "INSERT INTO chat_audit SELECT * FROM kept")
        await change(store, "DROP TABLE kept")
        assert (await audit.verify()).sequence == 5


async def test_no_entry_can_be_left_out_or_cut_off(store: DatabaseStore) -> None:
    audit = Audit(store.database, KEY)
    for look in LOOKS[:3]:
        await audit.record(look)
    earlier = await audit.verify()
    await audit.record(LOOKS[3])
    assert (await audit.verify(earlier)).sequence == 4
    with pytest.raises(BrokenChainError, match="another key"):
        await Audit(store.database, "o" * 40).verify()
    await change(store, "DELETE FROM chat_audit WHERE sequence >= 3")
    # A shorter chain is a chain: that it was longer shows against the head that was noted.
    assert (await audit.verify()).sequence == 2
    with pytest.raises(BrokenChainError, match="Entries 3 to 3 are missing"):
        await audit.verify(earlier)
    await audit.record(LOOKS[4])
    with pytest.raises(BrokenChainError, match="Entry 3 is another one"):
        await audit.verify(earlier)
    await change(store, "DELETE FROM chat_audit WHERE sequence = 2")
    with pytest.raises(BrokenChainError, match="Entry 2 is missing"):
        await audit.verify()


async def test_many_processes_write_one_chain(store: DatabaseStore, database_url: URL) -> None:
    databases = [Database(database_url, pool_size=2) for _ in range(3)]

    async def look_often(database: Database) -> None:
        for _ in range(10):
            await Audit(database, KEY).record(LOOKS[0])

    try:
        await asyncio.gather(*(look_often(database) for database in databases for _ in range(2)))
    finally:
        for database in databases:
            await database.close()
    assert (await Audit(store.database, KEY).verify()).sequence == 60


async def test_a_look_beside_an_erasure_leaves_no_name(store: DatabaseStore) -> None:
    audit, erasure = Audit(store.database, KEY), Erasure(store.database, NoStorage(), KEY, wait_seconds=0)
    for number in range(20):
        user = f"gone-{number}"
        await store.save_thread(thread(f"thr_{user}"), RequestContext(user))
        looks = [audit.record(Look("sam", "http", "thread.show", user, f"thr_{user}")) for _ in range(4)]
        await asyncio.gather(erasure.erase(user), *looks)
        assert len([row async for row in audit.entries(user)]) == 5
    assert await audit.verify() != Head()
    async with sql_connection(store.database) as connection:
        named = await connection.execute(text("SELECT count(*) FROM chat_audit a WHERE a::text LIKE '%gone-%'"))
        assert named.scalar() == 0
