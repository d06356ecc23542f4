"""Hands out connections of asyncpg's pool that answer, and discards those that do not."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import asyncpg
from sqlalchemy import URL

from chatkit_postgres.db.address import keepalive_of
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.db.failures import (
    DRIVER_ERRORS,
    READ_ONLY,
    ConnectionLost,
    ConnectionSilent,
    PoolExhausted,
    is_broken,
    sqlstate,
)
from chatkit_postgres.db.keepalive import keep_alive
from chatkit_postgres.db.slots import Slots
from chatkit_postgres.errors import DatabaseUnavailable

IDLE_SECONDS = 10
"""A connection that was idle for longer is pinged before it is used."""
PING_SECONDS = 2
CLOSE_SECONDS = 2
FRESH_SECONDS = 0.2
"""If a connection younger than this is read-only, the server itself is; connecting again would not help."""


T = TypeVar("T")


class TimedConnection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """Remembers when it was opened and when it last answered, in seconds of the monotonic clock."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.opened_at = self.answered_at = time.monotonic()

    def itself(self) -> "TimedConnection":
        """The connection behind a proxy of the pool."""
        return self


class Connections(Protocol):
    in_use: int

    # A function and not a context manager, which would cost a tenth of a statement's processor time.
    async def use(self, work: Callable[[TimedConnection], Awaitable[T]]) -> T:
        """Run a statement or a transaction on a connection."""
        ...

    async def close(self) -> None: ...


class SingleConnections:
    """A new connection for each statement, so that one Database serves any number of event loops."""

    def __init__(self, url: URL) -> None:
        self._open = _opener(url)
        self.in_use = 0

    async def use(self, work: Callable[[TimedConnection], Awaitable[T]]) -> T:
        connection = await self._open()
        self.in_use += 1
        try:
            return await work(connection)
        except Exception as error:
            if _is_lost(connection, error):
                raise ConnectionLost(error) from error
            raise
        finally:
            self.in_use -= 1
            await _close(connection)

    async def close(self) -> None:
        """Nothing stays open."""


class PooledConnections:
    """Up to ``size`` connections, opened when they are needed. Belongs to the event loop that uses it first."""

    def __init__(self, url: URL, size: int) -> None:
        self._open = _opener(url)
        self._size = size
        self._pool: asyncpg.Pool | None = None
        # Not the pool's own queue, whose time-out would include the time to connect, and which knows no order.
        self._slots = Slots(size)
        self._retired_at = self._doubted_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.in_use = 0

    async def use(self, work: Callable[[TimedConnection], Awaitable[T]]) -> T:
        try:
            await self._slots.acquire()
        except TimeoutError:
            raise PoolExhausted(f"all {self._size} connections were in use") from None
        self.in_use += 1
        try:
            if self._is_closed:
                raise DatabaseUnavailable
            pool = self._pool or await self._open_pool()
            proxy, connection = await self._acquire(pool)
            try:
                await self._ping_if_doubtful(connection)
                done = await work(connection)
                connection.answered_at = time.monotonic()
            except Exception as error:
                is_lost = _is_lost(connection, error)
                try:
                    await self._discard_if_broken(connection, error)
                finally:
                    await pool.release(proxy)
                if is_lost:
                    raise ConnectionLost(error) from error
                raise
            except BaseException:
                # Cancelled in the middle of a statement: with the connection its transaction ends.
                self._close_in_background(connection)
                raise
            await pool.release(proxy)
            return done
        finally:
            self.in_use -= 1
            self._slots.release()

    async def close(self) -> None:
        # A statement that is cut off must not open another pool.
        self._is_closed = True
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except (TimeoutError, *DRIVER_ERRORS):  # The server may have gone before.
            pool.terminate()

    async def _open_pool(self) -> asyncpg.Pool:
        # Nothing is connected yet, so this does not wait, and two callers cannot meet here.
        self._pool = await asyncpg.create_pool(
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=0,
            # Else every 50,000th statement would wait until its connection is closed.
            max_queries=sys.maxsize,
            connect=lambda *_, **__: self._open(),
            connection_class=TimedConnection,
            # asyncpg's own would be a round trip after each statement. Ours leave nothing behind to reset.
            reset=_leave_as_it_is,
        )
        return self._pool

    async def _acquire(self, pool: asyncpg.Pool) -> tuple[Any, TimedConnection]:
        """The pool's proxy, to release it, and the connection behind it."""
        while True:
            proxy = await pool.acquire()
            connection: TimedConnection = proxy.itself()
            if connection.opened_at > self._retired_at:
                return proxy, connection
            connection.terminate()

    async def _ping_if_doubtful(self, connection: TimedConnection) -> None:
        """A connection may be lost silently: behind a NAT, or with its host. Raises ConnectionSilent."""
        answered_at = connection.answered_at
        if answered_at > self._doubted_at and time.monotonic() - answered_at < IDLE_SECONDS:
            return
        try:
            await connection.execute("SELECT 1", timeout=PING_SECONDS)
        except TimeoutError as error:
            raise ConnectionSilent from error

    async def _discard_if_broken(self, connection: TimedConnection, error: Exception) -> None:
        """Close the connection unless it can be used again, and doubt the others if they may share its fate."""
        is_read_only = sqlstate(error) == READ_ONLY
        if is_read_only and time.monotonic() - connection.opened_at < FRESH_SECONDS:
            # The server itself is read-only, and new connections would not help.
            raise DatabaseUnavailable from error
        if isinstance(error, ConnectionSilent) or is_read_only:
            # Lost with its network, or connected to a server that is no longer the primary.
            self._retired_at = time.monotonic()
        elif isinstance(error, TimeoutError):
            self._doubted_at = time.monotonic()
        if isinstance(error, ConnectionSilent):
            connection.terminate()
        elif is_broken(error) or connection.is_closed() or connection.is_in_transaction():
            await _close(connection)

    def _close_in_background(self, connection: TimedConnection) -> None:
        closing = asyncio.create_task(_close(connection))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _opener(url: URL) -> Callable[[], Awaitable[TimedConnection]]:
    connect, keepalive = connector(url, connection_class=TimedConnection), keepalive_of(url)

    async def opened() -> TimedConnection:
        connection: TimedConnection = await connect()
        try:
            keep_alive(connection, keepalive)
        except BaseException:
            connection.terminate()
            raise
        return connection

    return opened


def _is_lost(connection: TimedConnection, error: Exception) -> bool:
    """Whether the connection broke under the statement."""
    is_gone = connection.is_closed() or isinstance(error, asyncpg.InternalClientError | ConnectionSilent)
    return is_gone and isinstance(error, DRIVER_ERRORS)


async def _leave_as_it_is(_: Any) -> None:
    pass


async def _close(connection: TimedConnection) -> None:
    """Close the connection, which also cancels a running statement; after CLOSE_SECONDS, cut it."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except (TimeoutError, *DRIVER_ERRORS):
        with suppress(Exception):
            connection.terminate()
