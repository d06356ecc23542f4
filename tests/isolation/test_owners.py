"""Every statement of the store, run by a stranger; and with its owner taken out of it, which must be noticed."""

import re
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Statement
from chatkit_postgres.errors import ChatError
from chatkit_postgres.main import create_app
from chatkit_postgres.settings import load_settings
from chatkit_postgres.store import DatabaseStore
from tests.isolation.matrix import OWN, RULES, SECRET, TABLES, Matrix, connected
from tests.isolation.owner_life import owner_lives
from tests.isolation.strangers import STATEMENTS, Strangers, Talkative
from tests.isolation.user_data import UserData, store_user_data

_COMPARED = re.compile(r'(\w+\.)?user_id = :owner( COLLATE "C")?')
_INSERTED = re.compile(r"(VALUES \(|SELECT ):owner")


@pytest.fixture
def settings(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "CHAT_JWT_ISSUER": str(RULES.issuer),
        "CHAT_STAFF_CLAIM": "role:support",
        "CHAT_ASSISTANT": "tests.isolation.strangers:build",
        "CHAT_REQUESTS_PER_MINUTE": "100000",
        "CHAT_TURN_STALE_SECONDS": "3",
        "CHAT_LOG_LEVEL": "ERROR",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def matrix(settings: None, database_url: URL, store: DatabaseStore) -> AsyncIterator[Matrix]:
    """Against the application in this process, so that its statements can be changed."""
    own, victim = (
        await store_user_data(store, UserData("mallory", "MINE")),
        await store_user_data(store, UserData("alice", "SECRET")),
    )

    async def calls() -> int:
        return Talkative.calls

    app = create_app(load_settings())
    # Without its lifespan, whose tasks ask the database for all owners.
    app.state.parts.started.set()
    transport = httpx2.ASGITransport(app)
    async with (
        httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client,
        connected(database_url) as database,
    ):
        yield Matrix(client, database, own, victim, calls)


async def look_everywhere(matrix: Matrix, store: DatabaseStore, database_url: URL) -> set[str]:
    """Both layers of the matrix. Raises AssertionError; returns the names of the statements that strangers tried."""
    async with connected(database_url) as connection:
        strangers = Strangers(matrix, connection)
        with pytest.MonkeyPatch.context() as patch:
            strangers.stand_before(patch)
            await owner_lives(matrix, store, strangers)
    assert strangers.findings == []
    for table in TABLES:
        owners = await matrix.database.fetch(f"SELECT DISTINCT user_id FROM chat_{table}")
        assert {row["user_id"] for row in owners} <= {"alice", "mallory"}, f"chat_{table} holds rows of nobody"
    for operation in OWN:
        await matrix.check(operation)
        matrix.own = await store_user_data(store, UserData("mallory", "MINE"))
    return strangers.tried


async def test_a_stranger_gets_nothing_from_any_statement(
    matrix: Matrix, store: DatabaseStore, database_url: URL
) -> None:
    tried = await look_everywhere(matrix, store, database_url)
    assert tried == set(STATEMENTS), "a statement of the store is not used by the owner of the matrix"


# Those of exports are in tests/user_data/test_owners.py. An import only inserts, and each row needs a thread of its
# owner: a foreign key, which the statement merely foresees.
@pytest.mark.parametrize("name", [name for name in STATEMENTS if not name.startswith(("import_", "export_"))])
async def test_a_statement_that_forgets_its_owner_is_noticed(
    matrix: Matrix, store: DatabaseStore, database_url: URL, name: str
) -> None:
    statement = STATEMENTS[name]
    forgetful, compared = _COMPARED.subn("(:owner IS NOT NULL)", statement.sql)
    if not compared:
        # It only inserts: its owner is a value.
        forgetful, inserted = _INSERTED.subn(r"\1 concat('nobody', left(:owner, 0))", statement.sql)
        assert inserted, f"{name} has no owner"
    original = statement.driver_sql
    statement.driver_sql = Statement(name, forgetful, **statement.types).driver_sql
    try:
        with pytest.raises((AssertionError, asyncpg.PostgresError, ChatError)) as noticed:
            await look_everywhere(matrix, store, database_url)
    finally:
        statement.driver_sql = original
    print(f"{name}: {str(noticed.value)[:150]}")  # noqa: T201 - for people who look
