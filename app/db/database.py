"""The connection to PostgreSQL. Retries and time-outs live here and nowhere else.

SQLAlchemy knows the URL, opens connections and keeps them in its pool; statements go to asyncpg directly, because
executing them through SQLAlchemy costs several times the processor time (see docs/decisions/0013).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

import asyncpg
from sqlalchemy import URL, NullPool, QueuePool, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
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
DRIVERS_CACHE = "statement_cache_size"
UNIQUE_VIOLATION = "23505"

# The last of them, where the server's farewell was read and the end of the connection was not yet.
_DRIVERS_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncpg.InternalClientError)

T = TypeVar("T")


class Row(Protocol):
    """Of a result, as asyncpg has it: read by name. Iterating over it gives its values."""

    def __getitem__(self, name: str, /) -> Any: ...
    def keys(self) -> Iterable[str]: ...
    def values(self) -> Iterable[Any]: ...
    def items(self) -> Iterable[tuple[str, Any]]: ...


class UniqueViolation(Exception):
    """Somebody else's row has that key."""


class _ConnectionLost(Exception):
    """It broke under a statement, and nobody knows whether that was committed."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(str(orig))
        self.orig = orig


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
        arguments[DRIVERS_CACHE] = 0
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
        arguments = connect_arguments(given)
        self._is_behind_pooler = arguments.get(DRIVERS_CACHE) == 0
        self.engine: AsyncEngine = create_async_engine(
            given,
            # No ping before each statement, which would be a second round trip: a connection that was lost while it lay
            # in the pool is not handed out, or fails and the statement is tried again.
            # One statement is one transaction and one round trip; `run_transaction` is the exception.
            isolation_level="AUTOCOMMIT",
            # Errors would print message text otherwise.
            hide_parameters=True,
            connect_args=arguments,
            **pool,
        )
        self.on_retry: Callable[[str], object] = lambda _: None
        event.listen(self.engine.sync_engine, "checkout", _not_closed)

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """Run one statement for its owner, committed when this returns, and return its rows.

        The statement must be safe to repeat: after a lost connection nobody knows whether it was committed,
        and it is tried again. Raises DatabaseUnavailable when the tries are used up.
        """
        return await self._run(statement, {"owner": owner, **parameters})

    async def run_for_all_owners(self, statement: Statement, **parameters: Any) -> Sequence[Row]:
        """For maintenance alone: a statement that names no owner."""
        return await self._run(statement, parameters)

    async def _run(self, statement: Statement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        values = statement.values(parameters)
        if self._is_behind_pooler:
            # Where nothing stays prepared, asyncpg prepares and executes in two steps, and only a transaction keeps
            # both on one connection.
            return await self.run_transaction(statement.name, lambda transaction: transaction.fetch(statement, values))

        async def attempt() -> Sequence[Row]:
            async with self._driver() as driver:
                rows: Sequence[Row] = await driver.fetch(statement.driver_sql, *values)
                return rows

        return await self._retried(statement.name, attempt)

    async def run_transaction(self, name: str, work: Callable[["Transaction"], Awaitable[T]]) -> T:
        """Run several statements as one short transaction, all of it again after a transient failure."""

        async def attempt() -> T:
            async with self._driver() as driver:
                # Not driver.transaction(), which goes by what it did last and not by what the server says.
                await driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                try:
                    done = await work(Transaction(driver))
                except Exception:  # When it is cancelled, the connection goes, and with it the transaction.
                    with suppress(Exception):
                        await driver.execute("ROLLBACK")
                    raise
                await driver.execute("COMMIT")
                return done

        return await self._retried(name, attempt)

    @asynccontextmanager
    async def _driver(self) -> AsyncGenerator[Any]:
        """A connection of the pool, as asyncpg has it. One that is in the middle of something does not go back."""
        async with self.engine.connect() as connection:
            # Not by get_raw_connection(), which would cost a greenlet.
            driver: Any = connection.sync_connection.connection.driver_connection  # type: ignore[union-attr]
            try:
                yield driver
            except Exception as error:
                is_lost = driver.is_closed() or isinstance(error, asyncpg.InternalClientError)
                if is_lost or isinstance(error, TimeoutError) or driver.is_in_transaction():
                    await connection.invalidate(error)
                if is_lost and isinstance(error, _DRIVERS_ERRORS):
                    raise _ConnectionLost(error) from error
                raise
            except BaseException as cancelled:
                await connection.invalidate(cancelled)
                raise

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """SQLAlchemy's own, which commits each statement and tries none again: for a start, scripts and tests."""
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
            except (DBAPIError, _ConnectionLost, asyncpg.PostgresError, OSError, PoolTimeoutError) as error:
                if _sqlstate(error) == UNIQUE_VIOLATION:
                    raise UniqueViolation from error
                if not _is_transient(error):
                    raise
                reason = _sqlstate(error) or type(getattr(error, "orig", None) or error).__name__
                self.on_retry(reason)
                if not was_stale and isinstance(error, _ConnectionLost):
                    # It was lost while it lay in the pool, perhaps long ago: that says nothing of the server.
                    was_stale, tries_left = True, TRIES
                    continue
                logger.warning("database_retry", statement=name, reason=reason, tries_left=tries_left)
                if tries_left == 0 or not _is_worth_repeating(error):
                    raise DatabaseUnavailable from error
            await asyncio.sleep(random.uniform(0.02, 0.1) * (TRIES - tries_left))  # noqa: S311 - jitter is no secret


class Transaction:
    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def run(self, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]:
        return await self.fetch(statement, statement.values({"owner": owner, **parameters}))

    async def fetch(self, statement: Statement, values: Sequence[Any]) -> Sequence[Row]:
        rows: Sequence[Row] = await self._driver.fetch(statement.driver_sql, *values)
        return rows


def _not_closed(connection: Any, *_: Any) -> None:
    """The pool opens another one instead."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_transient(error: BaseException) -> bool:
    """Whether the trouble is the database's, not the statement's.

    40001 and 40P01: lost a race. 08xxx and 57P01 to 57P03: the connection or the server went away. 53xxx: out
    of resources. No SQLSTATE: the connection broke, timed out, or could not be had.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # The schema has changed under it.
        return True
    state = _sqlstate(error)
    if state is None:
        return isinstance(error, _ConnectionLost | OSError | PoolTimeoutError | InterfaceError) or isinstance(
            getattr(error, "orig", None), OSError | TimeoutError
        )
    return state in {"40001", "40P01", "57P01", "57P02", "57P03"} or state[:2] in {"08", "53"}


def _is_worth_repeating(error: BaseException) -> bool:
    # A server out of connections or memory is not helped by two more tries, nor is a pool that kept us
    # waiting for its whole time-out.
    return (_sqlstate(error) or "")[:2] != "53" and not isinstance(error, PoolTimeoutError)
