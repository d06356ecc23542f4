"""PostgreSQL's own counters, read on a connection of the benchmark's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL


@asynccontextmanager
async def connection_to(url: URL) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(host=url.query["host"], user=url.username, database=url.database)
    try:
        yield connection
    finally:
        await connection.close()


async def wal_bytes(connection: asyncpg.Connection) -> int:
    """Bytes in PostgreSQL's write-ahead log so far."""
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


@dataclass(frozen=True)
class Counters:
    commits: int
    """Committed transactions. A statement outside of a transaction counts as one."""
    wal: int
    """Bytes in the write-ahead log."""

    @classmethod
    async def read(cls, url: URL) -> "Counters":
        async with connection_to(url) as connection:
            commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            return cls(int(await connection.fetchval(commits)), await wal_bytes(connection))
