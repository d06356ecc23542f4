"""The connection to PostgreSQL. Retries and time-outs live here and nowhere else."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import URL, NullPool, QueuePool, RowMapping, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.db.statement import Statement
from app.errors import DatabaseUnavailable
from app.observability.logs import get_logger

CONNECT_TIMEOUT_SECONDS = 5
COMMAND_TIMEOUT_SECONDS = 10
TRIES = 3

logger = get_logger(__name__)

SQLALCHEMYS_CACHE = "prepared_statement_cache_size"
UNIQUE_VIOLATION = "23505"

T = TypeVar("T")


class UniqueViolation(Exception):
    """Somebody else's row has that key."""


def normalised_url(url: str | URL) -> URL:
    """``postgres://`` and ``postgresql://`` as providers hand them out, with the driver we use.

    Raises ValueError for anything that is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except Exception as error:  # SQLAlchemy's message may repeat the password.
        raise ValueError("not a database URL") from error
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("not a PostgreSQL URL")
    query = dict(parsed.query)
    # Parameters of libpq that providers print: asyncpg calls one of them ssl, and knows nothing of the others.
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    for name in ("channel_binding", "application_name", "connect_timeout", "options"):
        query.pop(name, None)
    # As providers print it for poolers that give each transaction another connection, which has prepared nothing.
    if query.pop("pgbouncer", "") == "true":
        query[SQLALCHEMYS_CACHE] = "0"
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def connect_arguments(url: URL) -> dict[str, Any]:
    """What a URL cannot say to asyncpg."""
    arguments: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": COMMAND_TIMEOUT_SECONDS}
    if url.query.get(SQLALCHEMYS_CACHE) == "0":
        arguments["statement_cache_size"] = 0
    return arguments


class Database:
    """Runs statements for an owner. Needs no running event loop to construct and connects lazily.

    With ``pooled=False`` every statement has its own connection, so one object serves any number of event
    loops, one after the other or at once: scripts and test-suites want that.
    """

    def __init__(self, url: str | URL, *, pooled: bool = True, pool_size: int = 10) -> None:
        pool: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 10} if pooled else {"poolclass": NullPool}
        )
        given = normalised_url(url)
        self.engine: AsyncEngine = create_async_engine(
            given,
            # No ping before each statement, which would be a second round trip: a connection that was lost while it lay
            # in the pool fails, throws all others of its age away, and the statement is tried again.
            # One statement is one transaction and one round trip; `transaction` is the exception.
            isolation_level="AUTOCOMMIT",
            # Errors would print message text otherwise.
            hide_parameters=True,
            connect_args=connect_arguments(given),
            **pool,
        )
        self.on_retry: Callable[[str], object] = lambda _: None
        self._transactional = self.engine.execution_options(isolation_level="READ COMMITTED")

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[RowMapping]:
        """Run one statement for its owner, committed when this returns, and return its rows.

        The statement must be safe to repeat: after a lost connection nobody knows whether it was committed,
        and it is tried again. Raises DatabaseUnavailable when the tries are used up.
        """

        async def attempt() -> Sequence[RowMapping]:
            async with self.engine.connect() as connection:
                result = await connection.execute(statement.clause, {"owner": owner, **parameters})
                return result.mappings().all() if result.returns_rows else []

        return await self._retried(statement.name, attempt)

    async def run_for_all_owners(self, statement: Statement, **parameters: Any) -> Sequence[RowMapping]:
        """For maintenance alone: a statement that names no owner."""

        async def attempt() -> Sequence[RowMapping]:
            async with self.engine.connect() as connection:
                result = await connection.execute(statement.clause, parameters)
                return result.mappings().all() if result.returns_rows else []

        return await self._retried(statement.name, attempt)

    async def run_transaction(self, name: str, work: Callable[["Transaction"], Awaitable[T]]) -> T:
        """Run several statements as one short transaction, all of it again after a transient failure."""

        async def attempt() -> T:
            async with self._transactional.begin() as connection:
                return await work(Transaction(connection))

        return await self._retried(name, attempt)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """A plain connection for start-up checks; no statement about an owner goes through it."""
        async with self.engine.connect() as connection:
            yield connection

    def connections_in_use(self) -> int:
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    async def close(self) -> None:
        await self.engine.dispose()

    async def _retried(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        was_stale = False
        tries_left = TRIES
        while True:
            tries_left -= 1
            try:
                return await attempt()
            except (DBAPIError, OSError, PoolTimeoutError) as error:
                if _sqlstate(error) == UNIQUE_VIOLATION:
                    raise UniqueViolation from error
                if not _is_transient(error):
                    raise
                reason = _sqlstate(error) or type(error).__name__
                self.on_retry(reason)
                if not was_stale and isinstance(error, DBAPIError) and error.connection_invalidated:
                    # It was lost while it lay in the pool, perhaps long ago: that says nothing of the server.
                    was_stale, tries_left = True, TRIES
                    continue
                logger.warning("database_retry", statement=name, reason=reason, tries_left=tries_left)
                if tries_left == 0 or not _is_worth_repeating(error):
                    raise DatabaseUnavailable from error
            await asyncio.sleep(random.uniform(0.02, 0.1) * (TRIES - tries_left))  # noqa: S311 - jitter is no secret


class Transaction:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[RowMapping]:
        result = await self._connection.execute(statement.clause, {"owner": owner, **parameters})
        return result.mappings().all() if result.returns_rows else []


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_transient(error: BaseException) -> bool:
    """Whether the trouble is the database's, not the statement's.

    40001 and 40P01: lost a race. 08xxx and 57P01 to 57P03: the connection or the server went away. 53xxx: out
    of resources. No SQLSTATE: the connection broke, timed out, or could not be had.
    """
    state = _sqlstate(error)
    if state is None:
        return (
            isinstance(error, OSError | PoolTimeoutError | InterfaceError)
            or (isinstance(error, DBAPIError) and error.connection_invalidated)
            or isinstance(getattr(error, "orig", None), OSError | TimeoutError)
        )
    return state in {"40001", "40P01", "57P01", "57P02", "57P03"} or state[:2] in {"08", "53"}


def _is_worth_repeating(error: BaseException) -> bool:
    # A server out of connections or memory is not helped by two more tries, nor is a pool that kept us
    # waiting for its whole time-out.
    return (_sqlstate(error) or "")[:2] != "53" and not isinstance(error, PoolTimeoutError)
