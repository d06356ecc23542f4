"""Measures the store's turns per second against the same statements through asyncpg alone, and against the Agents SDK's
own ``SQLAlchemySession``, which has no users, no turns and no order but its own.

A turn is the work of the store for one message: append the user's message, append the answer, load the thread.
Both sides run in turn on one machine and one PostgreSQL, so only the ratio means something.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
from agents.extensions.memory import SQLAlchemySession
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.counters import wal_bytes
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import message_uuid, new_id, session_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.rows import item_row
from chatkit_postgres.store.sql import items as sql
from tests.support.items import assistant_message, thread, user_message
from tests.support.sql import Statements

ROUNDS = 5
KILOBYTE = "x" * 1000

Turn = Callable[[], Awaitable[None]]


def store_turn(store: DatabaseStore, thread_id: str) -> Turn:
    context = RequestContext(user_id="bench")

    async def turn() -> None:
        await store.add_thread_item(thread_id, user_message(thread_id, new_id("message"), KILOBYTE), context)
        await store.add_thread_item(thread_id, assistant_message(thread_id, new_id("message"), KILOBYTE), context)
        await store.load_thread_items(thread_id, None, 20, "desc", context)

    return turn


def raw_turn(connection: asyncpg.Connection, thread_id: str) -> Turn:
    session = session_uuid(thread_id)

    async def turn() -> None:
        for make in (user_message, assistant_message):
            item = make(thread_id, new_id("message"), KILOBYTE)
            row = item_row(item)
            values: dict[str, Any] = {
                "owner": "bench",
                "session": session,
                "message": message_uuid(session, row.item_id),
                "turn": None,
                "item_id": row.item_id,
                "item_type": row.item_type,
                "sender_type": row.sender_type,
                "sender_name": None,
                "content": row.content,
                "item": row.item,
                **item_entry("bench", item),
                "partial": False,
                "draft": False,
                "replace": False,
                "operation": None,
                "idempotency_key": None,
                "request_hash": None,
                "opens": False,
            }
            await connection.fetch(sql.APPEND_ITEM.driver_sql, *sql.APPEND_ITEM.values(values))
        values = {"owner": "bench", "session": session, "after": None, "after_position": None, "with_hidden": True}
        values |= {"page": 21, "turn": None, "retry_from": None}
        listing = sql.LIST_ITEMS_NEWEST_FIRST
        await connection.fetch(listing.driver_sql, *listing.values(values))

    return turn


async def turns_per_second(turn: Turn, seconds: float) -> float:
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        await turn()
        count += 1
    return count / elapsed


def session_turn(engine: AsyncEngine, thread_id: str) -> Turn:
    session = SQLAlchemySession(thread_id, engine=engine, create_tables=True)

    async def turn() -> None:
        await session.add_items([{"role": "user", "content": KILOBYTE}])
        await session.add_items([{"role": "assistant", "content": KILOBYTE}])
        await session.get_items(20)

    return turn


class SessionStatements:
    """Counts the statements of an engine, including begin and commit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.count = 0
        for name in ("before_cursor_execute", "begin", "commit"):
            event.listen(engine.sync_engine, name, self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


async def measure(url: URL, seconds: float) -> None:
    store = DatabaseStore(Database(url))
    sessions = create_async_engine(store.database.url)
    connection = await asyncpg.connect(host=url.query["host"], user=url.username, database=url.database)
    own, theirs = Statements(store.database), SessionStatements(sessions)
    counted = {
        "this store": lambda: len(own.names),
        "SQLAlchemySession": lambda: theirs.count,
    }
    speeds: dict[str, list[float]] = {"this store": [], "asyncpg alone": [], "SQLAlchemySession": []}
    statements, written = dict.fromkeys(speeds, 3.0), dict.fromkeys(speeds, 0.0)
    for _ in range(ROUNDS):
        for name, figures in speeds.items():
            thread_id = f"thr_{uuid4().hex}"
            await store.save_thread(thread(thread_id), RequestContext(user_id="bench"))
            turn = {
                "this store": lambda t=thread_id: store_turn(store, t),
                "asyncpg alone": lambda t=thread_id: raw_turn(connection, t),
                "SQLAlchemySession": lambda t=thread_id: session_turn(sessions, t),
            }[name]()
            await turn()
            before, sent = await wal_bytes(connection), counted[name]() if name in counted else 0
            figures.append(await turns_per_second(turn, seconds))
            turns = figures[-1] * seconds
            written[name] = (await wal_bytes(connection) - before) / turns
            if name in counted:
                statements[name] = (counted[name]() - sent) / turns
    floor = statistics.median(speeds["asyncpg alone"])
    print(f"{'':20}{'turns/s':>10}{'ratio':>8}{'statements':>12}{'bytes written':>15}   a turn of two messages of 1 KB")
    for name, figures in speeds.items():
        speed = statistics.median(figures)
        print(f"{name:20}{speed:10.0f}{speed / floor:8.2f}{statements[name]:12.1f}{written[name]:15.0f}")
    await connection.close()
    await sessions.dispose()
    await store.database.close()
