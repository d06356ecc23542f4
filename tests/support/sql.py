"""SQL of a test's own, and the names of the statements that a Database sends."""

import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from asyncpg.connection import LoggedQuery
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chatkit_postgres.db import Database
from chatkit_postgres.db.connecting import driver_arguments
from chatkit_postgres.db.connections import PooledConnections, TimedConnection

OF_CHECKPOINTS = {"save_partial_items", "checkpoint_turns", "find_citus"}
"""The statements of a turn that depend on how long it takes."""


class Statements:
    """The names of the statements that reach PostgreSQL, in order."""

    def __init__(self, database: Database) -> None:
        self.names: list[str] = []
        connections = database._connections
        assert isinstance(connections, PooledConnections)
        original = connections._open

        async def opened() -> TimedConnection:
            connection = await original()
            connection.add_query_logger(self._note)
            return connection

        connections._open = opened
        # Those that are open already are replaced.
        connections._retired_at = time.monotonic()

    def _note(self, logged: LoggedQuery) -> None:
        named = re.match(r"/\* chatkit:(\w+) \*/", logged.query)
        self.names.append(named[1] if named else logged.query)


@asynccontextmanager
async def sql_connection(database: Database, isolation_level: str = "AUTOCOMMIT") -> AsyncGenerator[AsyncConnection]:
    """A connection of SQLAlchemy's, which commits each statement."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # A test may fill a table on a machine that is busy: longer than a statement of the service may take.
        connect_args=driver_arguments(database.url, command_timeout=240),
        isolation_level=isolation_level,
        poolclass=NullPool,
    )
    async with engine.connect() as connection:
        yield connection
