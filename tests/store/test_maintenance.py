"""What is done now and then for all owners."""

import asyncio
from contextlib import suppress
from typing import Any

from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.maintenance import close_stale_turns, run_maintenance
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql.maintenance import FORGET_KEYS
from tests.support.chat import stored
from tests.support.items import assistant_message, thread, user_message
from tests.support.sql import sql_connection


async def running(store: DatabaseStore, user: str, *, key: str | None = None) -> RequestContext:
    context = RequestContext(
        user_id=user,
        session=WriteSession("threads.add_user_message", idempotency_key=key, request_hash="h" if key else None),
    )
    await store.save_thread(thread("t"), RequestContext(user_id=user))
    await store.add_thread_item("t", user_message("t", "m"), context)
    return context


async def change(store: DatabaseStore, command: str) -> None:
    async with sql_connection(store.database) as connection:
        await connection.execute(text(command))


async def test_turns_without_a_heartbeat_are_closed_and_lose_their_threads(store: DatabaseStore) -> None:
    await running(store, "alive")
    dead = await running(store, "dead")
    await change(store, "UPDATE chat_turns SET heartbeat_at = now() - interval '31 s' WHERE user_id = 'dead'")
    assert await close_stale_turns(store.database, 30) == 1
    turns: dict[str, Any] = {row["user_id"]: row for row in await stored(store, "SELECT * FROM chat_turns")}
    assert (turns["alive"]["state"], turns["dead"]["state"]) == ("running", "interrupted")
    threads = {row["user_id"]: row for row in await stored(store, "SELECT * FROM chat_sessions")}
    assert threads["dead"]["current_turn_id"] is None
    assert threads["alive"]["current_turn_id"] is not None
    # A process that only stalled changes nothing any more.
    assert not await store.turns.finish(dead, Outcome("completed"), unfinished=[assistant_message("t", "late")])
    assert len(await stored(store, "SELECT * FROM chat_messages WHERE user_id = 'dead'")) == 1


async def test_keys_are_forgotten_after_a_day(store: DatabaseStore) -> None:
    await running(store, "today", key="same")
    await running(store, "yesterday", key="same")
    await change(store, "UPDATE chat_turns SET started_at = now() - interval '25 hours' WHERE user_id = 'yesterday'")
    await store.database.run_for_all_owners(FORGET_KEYS)
    keys = {row["user_id"]: row["idempotency_key"] for row in await stored(store, "SELECT * FROM chat_turns")}
    assert keys == {"today": "same", "yesterday": None}


async def test_maintenance_comes_round_by_itself(store: DatabaseStore) -> None:
    await running(store, "dead")
    await change(store, "UPDATE chat_turns SET heartbeat_at = now() - interval '1 hour'")
    upkeep = asyncio.create_task(run_maintenance(store.database, stale_seconds=0.2))
    async with asyncio.timeout(10):
        while await stored(store, "SELECT 1 FROM chat_turns WHERE state = 'running'"):  # noqa: ASYNC110 - PostgreSQL's
            await asyncio.sleep(0.05)
    upkeep.cancel()
    with suppress(asyncio.CancelledError):
        await upkeep


async def test_all_turns_of_a_process_that_died_are_closed_however_many(store: DatabaseStore) -> None:
    await change(
        store,
        "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, heartbeat_at)"
        " SELECT 'u' || n, gen_random_uuid(), gen_random_uuid(), 'threads.create', now() - interval '1 h'"
        " FROM generate_series(1, 250) n",
    )
    task = asyncio.create_task(run_maintenance(store.database, stale_seconds=1))
    async with asyncio.timeout(10):
        while await stored(store, "SELECT 1 FROM chat_turns WHERE state = 'running'"):  # noqa: ASYNC110 - in another task
            await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
