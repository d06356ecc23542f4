"""An export, an erasure and a retention are of one owner alone: a statement that forgets its owner is noticed."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import URL, text

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.retention import Retention, delete_old_threads
from chatkit_postgres.store.sql import erasure, retention
from chatkit_postgres.store.sql.user_data import LISTS
from chatkit_postgres.user_data.erasure import Erasure
from chatkit_postgres.user_data.export import Export
from tests.faults.harness import new_user
from tests.isolation.matrix import TABLES
from tests.isolation.user_data import FILE, FILE_KEY, UserData, store_user_data
from tests.support.sql import sql_connection

_COMPARED = re.compile(r"(\w+\.)?user_id = :owner")


@pytest.fixture
async def store(shared_database: URL) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore(Database(shared_database))
    yield opened
    await opened.close()


async def exported(store: DatabaseStore, user: str, directory: Path) -> bytes:
    storage = ObjectStorage.in_directory(directory)
    await storage.put(FILE_KEY, FILE, content_type="text/plain", disposition="attachment")
    return b"".join([piece.data async for piece in Export(store.database, storage, user, with_hidden=True).pieces()])


@pytest.mark.parametrize("record", LISTS)
async def test_a_statement_that_forgets_its_owner_is_noticed(store: DatabaseStore, tmp_path: Path, record: str) -> None:
    alice, bob = new_user(), new_user()
    hers = UserData(alice, "MARK")
    await store_user_data(store, hers)
    before = await exported(store, alice, tmp_path)
    # Under the same ids: a record of an unknown thread is no part of an export, whoever owns it.
    await store_user_data(store, replace(hers, user=bob, mark="SECRET", is_answered=True))
    assert await exported(store, alice, tmp_path) == before
    statement = LISTS[record]
    original = statement.driver_sql
    statement.driver_sql = forgetful(statement)
    try:
        assert await exported(store, alice, tmp_path) != before
    finally:
        statement.driver_sql = original


ERASING = {
    statement.name: statement
    for statement in (*erasure.ERASE_ROWS.values(), erasure.ERASE_FILE, erasure.LIST_FILES, erasure.ERASE_USER)
}
DELETING = {statement.name: statement for statement in (retention.FIND_OLD_THREAD, retention.DELETE_OLD_MESSAGES)}


async def rows_of(store: DatabaseStore, user: str) -> list[str]:
    found = []
    async with sql_connection(store.database) as connection:
        for table in TABLES:
            rows = await connection.execute(text(f"SELECT r::text FROM chat_{table} r WHERE user_id = :u"), {"u": user})
            found += sorted(row[0] for row in rows)
    return found


@pytest.fixture
async def fresh(database_url: URL) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore(Database(database_url))
    yield opened
    await opened.close()


async def two_with_the_same_ids(store: DatabaseStore) -> tuple[str, str]:
    hers = UserData("alice", "MARK", is_answered=True)
    await store_user_data(store, hers)
    await store_user_data(store, replace(hers, user="bob", mark="SECRET"))
    for owner in ("alice", "bob"):
        caller = {"user_id": owner}
        await store.limits.count_requests(caller, 1, per_minute=9)
        await store.limits.hold_turn(uuid4(), caller, max_turns=9, tokens=0, tokens_per_day=None)
    return "alice", "bob"


def forgetful(statement: Statement) -> str:
    changed, compared = _COMPARED.subn("(:owner IS NOT NULL)", statement.sql)
    assert compared
    return Statement(statement.name, changed, **statement.types).driver_sql


@pytest.mark.parametrize("name", ERASING)
async def test_an_erasure_that_forgets_its_owner_is_noticed(
    fresh: DatabaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    alice, bob = await two_with_the_same_ids(fresh)
    before = await rows_of(fresh, bob)
    monkeypatch.setattr(ERASING[name], "driver_sql", forgetful(ERASING[name]))
    storage = ObjectStorage.in_directory(tmp_path)
    erasing = Erasure(fresh.database, storage, "k" * 40, wait_seconds=0, max_wait_seconds=0)
    try:
        async with asyncio.timeout(5):
            await erasing.erase(alice)
    except (asyncpg.PostgresError, TimeoutError):
        # Bob's rows refer to those that are deleted, or a list that names his files finds no end.
        return
    assert await rows_of(fresh, bob) != before


@pytest.mark.parametrize("name", DELETING)
async def test_a_retention_that_forgets_its_owner_is_noticed(
    fresh: DatabaseStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _, bob = await two_with_the_same_ids(fresh)
    async with sql_connection(fresh.database) as connection:
        for table in ("chat_sessions", "chat_messages"):
            old = "now() - interval '91 days'"
            await connection.execute(text(f"UPDATE {table} SET created_at = {old} WHERE user_id = 'alice'"))
        await connection.execute(text("UPDATE chat_sessions SET current_turn_id = NULL"))
    before = await rows_of(fresh, bob)
    assert await delete_old_threads(fresh.database, Retention(90)) == 3
    assert await rows_of(fresh, bob) == before
    statement = DELETING[name]
    monkeypatch.setattr(statement, "driver_sql", forgetful(statement))
    session = session_uuid((await fresh.load_threads(1, None, "asc", RequestContext(bob))).data[0].id)
    wanted = {"before": datetime.now(UTC) - timedelta(days=90), "locked": True}

    async def work(transaction: Transaction) -> int:
        return len(await transaction.run("nobody", statement, session=session, **wanted))

    if name == retention.DELETE_OLD_MESSAGES.name:
        assert await fresh.database.run_transaction("as a stranger", work) > 0
    else:
        async with sql_connection(fresh.database) as connection:
            await connection.execute(text("UPDATE chat_messages SET created_at = now() - interval '91 days'"))
            await connection.execute(text("UPDATE chat_sessions SET created_at = now() - interval '91 days'"))
        assert await fresh.database.run_transaction("as a stranger", work) == 1
