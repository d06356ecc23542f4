"""Runs statements on PostgreSQL. All retries of the application are here."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import asyncpg
from sqlalchemy import URL

from chatkit_postgres.db.address import is_behind_pooler, normalised_url
from chatkit_postgres.db.connections import Connections, PooledConnections, SingleConnections
from chatkit_postgres.db.failures import (
    MIGRATE,
    PRIMARY,
    READ_ONLY,
    UNIQUE_VIOLATION,
    UNKNOWN_NAMES,
    ConnectionLost,
    UniqueViolation,
    is_broken,
    is_transient,
    is_worth_repeating,
    reason_of,
    sqlstate,
)
from chatkit_postgres.db.rows import Row
from chatkit_postgres.db.statement import Statement
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.observability.tracing import statement_span

TRIES = 3

READ_ONLY_SECONDS = 60
"""For how long a refused write counts, since reads are answered: maintenance writes more often."""

logger = get_logger(__name__)

T = TypeVar("T")

_FIND_CITUS = Statement("find_citus", "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'citus') AS found")


class StatementRunner(Protocol):
    """A Database, or a Transaction of one."""

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]: ...


class Transaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]:
        return await self.fetch(statement, statement.values({"owner": owner, **parameters}))

    async def fetch(self, statement: Statement, values: Sequence[Any]) -> Sequence[Row]:
        rows: Sequence[Row] = await self._connection.fetch(statement.driver_sql, *values)
        return rows


class Database:
    """Runs statements for an owner. Needs no running event loop to construct and connects lazily.

    With ``pooled=False`` every statement has its own connection, so one object serves any number of event
    loops, one after the other or at once: scripts and test-suites want that. ``on_retry`` is called with the reason of
    each retry: an SQLSTATE, or the name of an exception.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        pooled: bool = True,
        pool_size: int = 10,
        on_retry: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.url = normalised_url(url)
        self._is_behind_pooler = is_behind_pooler(self.url)
        self._connections: Connections = (
            PooledConnections(self.url, pool_size) if pooled else SingleConnections(self.url)
        )
        self._on_retry = on_retry
        self.pool_size = pool_size
        self._is_answered = True
        """Whether the last statement was; False: it was given up."""
        self._refuses_writes_until = -math.inf
        self._is_cluster: bool | None = None

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """Run one statement for its owner, committed when this returns, and return its rows.

        The statement must be safe to repeat: after a lost connection it is unknown whether it was committed,
        and it is tried again. Raises DatabaseUnavailable when the tries are used up.
        """
        return await self._run(statement, {"owner": owner, **parameters})

    async def run_for_all_owners(self, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """For maintenance alone: a statement that names no owner."""
        return await self._run(statement, parameters)

    async def run_for_several_owners(self, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """For a statement that reads or writes rows of several owners: each of its rows names its own."""
        return await self._run(statement, parameters)

    @property
    def is_known_cluster(self) -> bool:
        """Whether it was found to be a cluster when it was asked."""
        return self._is_cluster is True

    def forget_kind(self) -> None:
        """Ask again whether it is a cluster."""
        self._is_cluster = None

    async def is_cluster(self) -> bool:
        """Whether it is the coordinator of a Citus cluster, whose nodes have the rows of different owners. Asked
        once."""
        if self._is_cluster is None:
            (found,) = await self._run(_FIND_CITUS, {})
            self._is_cluster = found["found"]
        return self._is_cluster

    async def run_once(self, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """As ``run_for_all_owners``, without retries. Raises the driver's own errors."""
        values = statement.values(parameters)
        return await self._connections.use(lambda connection: Transaction(connection).fetch(statement, values))

    async def run_transaction(self, name: str, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run several statements as one short transaction, all of it again after a transient failure."""

        async def transaction(connection: Any) -> T:
            # Not asyncpg's transaction(), which trusts what it did last and not what the server reports.
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                done = await work(Transaction(connection))
            except Exception as error:  # When it is cancelled, the connection is closed, and with it the transaction.
                if not is_broken(error) and not connection.is_closed():
                    with suppress(Exception):
                        await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")
            return done

        return await self._retried(name, transaction)

    @property
    def is_available(self) -> bool:
        """Whether the last statement was answered, and no writes are refused."""
        return self._is_answered and time.monotonic() >= self._refuses_writes_until

    def connections_in_use(self) -> int:
        return self._connections.in_use

    async def close(self) -> None:
        await self._connections.close()

    async def _run(self, statement: Statement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        values = statement.values(parameters)
        if self._is_behind_pooler:
            # Where nothing stays prepared, asyncpg prepares and executes in two steps, and only a transaction keeps
            # both on one connection.
            return await self.run_transaction(statement.name, lambda transaction: transaction.fetch(statement, values))

        def fetch(connection: Any) -> Awaitable[Sequence[Row]]:
            rows: Awaitable[Sequence[Row]] = connection.fetch(statement.driver_sql, *values)
            return rows

        return await self._retried(statement.name, fetch)

    async def _answered(self, name: str, work: Callable[[Any], Awaitable[T]]) -> T:
        with statement_span(name):
            done = await self._connections.use(work)
        self._is_answered = True
        return done

    def _give_up(self, name: str, reason: str) -> None:
        self._is_answered = False
        if reason == READ_ONLY:
            self._refuses_writes_until = time.monotonic() + READ_ONLY_SECONDS
            logger.warning("database_is_read_only", statement=name, cure=PRIMARY)
        else:
            logger.warning("database_given_up", statement=name, reason=reason)

    async def _retried(self, name: str, work: Callable[[Any], Awaitable[T]]) -> T:
        was_stale = False
        tries_left = TRIES
        while True:
            tries_left -= 1
            try:
                return await self._answered(name, work)
            except DatabaseUnavailable as error:
                # New connections would not help.
                self._give_up(name, reason_of(error.__cause__ or error))
                raise
            except (ConnectionLost, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                if sqlstate(error) == UNIQUE_VIOLATION:
                    raise UniqueViolation from error
                reason = reason_of(error)
                if reason in UNKNOWN_NAMES:
                    logger.error("schema_does_not_fit", statement=name, reason=reason, cure=MIGRATE)  # noqa: TRY400
                    raise DatabaseUnavailable from error
                if not is_transient(error):
                    raise
                self._on_retry(reason)
                if not was_stale and isinstance(error, ConnectionLost):
                    # It was lost while it was idle, perhaps long ago, which proves nothing about the server.
                    was_stale, tries_left = True, TRIES
                    continue
                if tries_left == 0 or not is_worth_repeating(error):
                    self._give_up(name, reason)
                    raise DatabaseUnavailable from error
                logger.warning("database_retry", statement=name, reason=reason, tries_left=tries_left)
            await asyncio.sleep(random.uniform(0.02, 0.1) * (TRIES - tries_left))  # noqa: S311 - jitter is no secret
