"""An export is of its owner alone: a statement that forgets its owner is noticed."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.sql.user_data import LISTS
from chatkit_postgres.user_data.export import Export
from tests.faults.harness import new_user
from tests.isolation.user_data import FILE, FILE_KEY, UserData, store_user_data

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
    forgetful, compared = _COMPARED.subn("(:owner IS NOT NULL)", statement.sql)
    assert compared
    original = statement.driver_sql
    statement.driver_sql = Statement(statement.name, forgetful, **statement.types).driver_sql
    try:
        assert await exported(store, alice, tmp_path) != before
    finally:
        statement.driver_sql = original
