"""The effects of tools, counted in a table of their own: a statement that commits is an effect that happened."""

import asyncio
import os
from collections import Counter

import asyncpg
from sqlalchemy import URL, make_url

from tests.conftest import execute, query

TABLE = "CREATE TABLE IF NOT EXISTS test_effects (note text NOT NULL, number bigserial PRIMARY KEY)"
VARIABLE = "EFFECTS_URL"
"""The variable in the environment of a tool's process that names the database."""


def prepare(database: URL) -> dict[str, str]:
    """Make the table. Returns the environment of the tools."""
    execute(database, TABLE)
    return {VARIABLE: database.render_as_string(hide_password=False)}


async def effect(note: str, *, before: float = 0, after: float = 0) -> None:
    """Happens once, after ``before`` seconds; takes ``after`` seconds more."""
    await asyncio.sleep(before)
    url = make_url(os.environ[VARIABLE])
    connection = await asyncpg.connect(
        host=str(url.query.get("host", url.host)), port=url.port, user=url.username, database=url.database
    )
    try:
        await connection.execute("INSERT INTO test_effects (note) VALUES ($1)", note)
    finally:
        await connection.close()
    await asyncio.sleep(after)


def effects(database: URL) -> Counter[str]:
    """How often each effect has happened."""
    return Counter(row["note"] for row in query(database, "SELECT note FROM test_effects"))
