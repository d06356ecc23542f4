"""Store-level turns per second, as a ratio to the floor: the same statements through asyncpg alone.

A turn is what the store does for one question: append the user's message, append the answer, load the thread.
Both sides run in turn on one machine and one PostgreSQL, so only the ratio means something.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import asyncpg
from sqlalchemy import URL, TextClause
from sqlalchemy.dialects import postgresql

from app.context import RequestContext
from app.db import Database
from app.store import DatabaseStore
from app.store.ids import message_uuid, new_id, session_uuid
from app.store.rows import item_row
from app.store.sql import items as sql
from tests.support.items import assistant_message, thread, user_message

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
    append, append_names = _compiled(sql.APPEND_ITEM.clause)
    listing, listing_names = _compiled(sql.LIST_ITEMS_NEWEST_FIRST.clause)
    session = session_uuid(thread_id)

    async def turn() -> None:
        for make in (user_message, assistant_message):
            row = item_row(make(thread_id, new_id("message"), KILOBYTE))
            values = {
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
                "partial": False,
                "draft": False,
                "replace": False,
                "operation": None,
                "idempotency_key": None,
                "request_hash": None,
                "opens": False,
            }
            await connection.fetch(append, *(values[name] for name in append_names))
        values = {"owner": "bench", "session": session, "after": None, "page": 21, "turn": None, "retry_from": None}
        await connection.fetch(listing, *(values[name] for name in listing_names))

    return turn


def _compiled(clause: TextClause) -> tuple[str, list[str]]:
    compiled = clause.compile(dialect=postgresql.asyncpg.dialect())  # type: ignore[no-untyped-call] # SQLAlchemy's
    return str(compiled), list(getattr(compiled, "positiontup", None) or [])


async def turns_per_second(turn: Turn, seconds: float) -> float:
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        await turn()
        count += 1
    return count / elapsed


async def measure(url: URL, seconds: float) -> None:
    store = DatabaseStore(Database(url))
    connection = await asyncpg.connect(host=url.query["host"], user=url.username, database=url.database)
    ratios = []
    for _ in range(ROUNDS):
        speeds = []
        for make in ("store", "raw"):
            thread_id = f"thr_{uuid4().hex}"
            await store.save_thread(thread(thread_id), RequestContext(user_id="bench"))
            turn = store_turn(store, thread_id) if make == "store" else raw_turn(connection, thread_id)
            await turn()
            speeds.append(await turns_per_second(turn, seconds))
        ratios.append(speeds[0] / speeds[1])
        print(f"store {speeds[0]:7.0f} turns/s   asyncpg alone {speeds[1]:7.0f} turns/s   ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, 3 statements a turn on both sides")
    await connection.close()
    await store.database.close()
