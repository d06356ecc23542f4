"""The connection to PostgreSQL. Retries and time-outs live here and nowhere else.

SQLAlchemy knows the URL, opens connections and keeps them in its pool; statements go to asyncpg directly, because
executing them through SQLAlchemy costs several times the processor time (see docs/decisions/0013).
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

import asyncpg
from sqlalchemy import URL, NullPool, QueuePool, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chatkit_postgres.db.address import is_behind_pooler, keepalive_of, normalised_url
from chatkit_postgres.db.connecting import driver_arguments
from chatkit_postgres.db.statement import Statement
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger

TRIES = 3
IDLE_SECONDS = 10
"""A connection that was idle for longer is asked whether it still lives."""
PING_SECONDS = 2
FRESH_SECONDS = 2
"""If a connection younger than this is read-only, the server itself is; connecting again would not help."""
UNIQUE_VIOLATION = "23505"
READ_ONLY = "25006"
# By libpq's names. The last is Linux's, in milliseconds: what was sent and not acknowledged for so long is lost.
_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}

logger = get_logger(__name__)

# asyncpg raises InternalClientError when it has read the server's shutdown message and not yet the EOF.
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


class ConnectionSilent(OSError):
    """A connection that does not answer."""


class _ConnectionLost(Exception):
    """It broke under a statement, and nobody knows whether that was committed."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(str(orig))
        self.orig = orig


class Database:
    """Runs statements for an owner. Needs no running event loop to construct and connects lazily.

    With ``pooled=False`` every statement has its own connection, so one object serves any number of event
    loops, one after the other or at once: scripts and test-suites want that.
    """

    def __init__(self, url: str | URL, *, pooled: bool = True, pool_size: int = 10) -> None:
        pool: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 10} if pooled else {"poolclass": NullPool}
        )
        self.url = normalised_url(url)
        self._is_behind_pooler = is_behind_pooler(self.url)
        self._retired_at = self._doubted_at = 0.0
        self.engine: AsyncEngine = create_async_engine(
            # All that is in the URL is in the connector.
            "postgresql+asyncpg://",
            # No `pool_pre_ping`, which costs a round trip per checkout: only connections that were idle, or are
            # doubtful, are pinged (`_ping_if_doubtful`).
            # One statement is one transaction and one round trip; `run_transaction` is the exception.
            isolation_level="AUTOCOMMIT",
            # Errors would print message text otherwise.
            hide_parameters=True,
            connect_args=driver_arguments(self.url),
            **pool,
        )
        self.on_retry: Callable[[str], object] = lambda _: None
        event.listen(self.engine.sync_engine, "connect", self._connected)
        event.listen(self.engine.sync_engine, "checkout", self._check_out)

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
            pooled: Any = connection.sync_connection.connection  # type: ignore[union-attr]
            driver: Any = pooled.driver_connection
            try:
                await self._ping_if_doubtful(driver, pooled.info)
                yield driver
                pooled.info["used_at"] = time.monotonic()
            except Exception as error:
                is_lost = driver.is_closed() or isinstance(error, asyncpg.InternalClientError | ConnectionSilent)
                if _sqlstate(error) == READ_ONLY and time.monotonic() - pooled.info["opened_at"] < FRESH_SECONDS:
                    # The server itself is read-only, and is not helped by new connections.
                    raise DatabaseUnavailable from error
                self._doubt(error)
                if isinstance(error, ConnectionSilent):
                    # Or closing it would wait for a farewell.
                    driver.terminate()
                if is_lost or _is_of_the_connection(error) or driver.is_in_transaction():
                    await connection.invalidate(error)
                if is_lost and isinstance(error, _DRIVERS_ERRORS):
                    raise _ConnectionLost(error) from error
                raise
            except BaseException as cancelled:
                await connection.invalidate(cancelled)
                raise

    async def _ping_if_doubtful(self, driver: Any, info: dict[str, Any]) -> None:
        """A connection may be lost without a word: behind a NAT, or with its host. Raises ConnectionSilent."""
        used_at = info.get("used_at", 0.0)
        if used_at > self._doubted_at and time.monotonic() - used_at < IDLE_SECONDS:
            return
        try:
            await driver.execute("SELECT 1", timeout=PING_SECONDS)
        except TimeoutError as error:
            raise ConnectionSilent from error

    def _doubt(self, error: Exception) -> None:
        """What one connection has shown may hold for the others that are in the pool."""
        if isinstance(error, ConnectionSilent) or _sqlstate(error) == READ_ONLY:
            # Lost with its network, or connected to a server that is no longer the primary.
            self._retired_at = time.monotonic()
        elif isinstance(error, TimeoutError):
            self._doubted_at = time.monotonic()

    def _connected(self, connection: Any, record: Any) -> None:
        record.info["opened_at"] = record.info["used_at"] = time.monotonic()
        keep_alive(connection.driver_connection, keepalive_of(self.url))

    def _check_out(self, connection: Any, record: Any, _: Any) -> None:
        """The pool opens another one instead."""
        is_retired = record.info["opened_at"] <= self._retired_at
        if is_retired:
            connection.driver_connection.terminate()
        if is_retired or connection.driver_connection.is_closed():
            raise DisconnectionError

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


def keep_alive(driver: Any, options: Mapping[str, int]) -> None:
    """Have the operating system notice a lost connection. Where it has no such option, or this is no TCP, nothing."""
    own = None
    with suppress(AttributeError):
        own = driver._transport.get_extra_info("socket")  # noqa: SLF001 - see docs/decisions/0006
    if own is None or own.family not in {socket.AF_INET, socket.AF_INET6} or not options:
        return
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _SOCKET_OPTIONS.items():
        if name in options and hasattr(socket, option):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), options[name])


def _is_of_the_connection(error: Exception) -> bool:
    """Whether another connection may do what this one did not."""
    return isinstance(error, TimeoutError) or _sqlstate(error) == READ_ONLY


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_transient(error: BaseException) -> bool:
    """Whether the trouble is the database's, not the statement's.

    40001 and 40P01: lost a race. 08xxx and 57P01 to 57P03: the connection or the server went away. 53xxx: out of
    resources. 28xxx and 3D000: it does not let us in, as while a password is changed. 25006: it is read-only, as an
    old primary is after a failover. No SQLSTATE: the connection broke, timed out, or could not be had.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # The schema has changed under it.
        return True
    state = _sqlstate(error)
    if state is None:
        return isinstance(error, _ConnectionLost | OSError | PoolTimeoutError | InterfaceError) or isinstance(
            getattr(error, "orig", None), OSError | TimeoutError
        )
    return state in {"40001", "40P01", "57P01", "57P02", "57P03", READ_ONLY} or state[:2] in {"08", "28", "3D", "53"}


def _is_worth_repeating(error: BaseException) -> bool:
    # A server out of connections or memory is not helped by two more tries, nor is one that does not let us in, nor a
    # pool that kept us waiting for its whole time-out.
    return (_sqlstate(error) or "")[:2] not in {"28", "3D", "53"} and not isinstance(error, PoolTimeoutError)
