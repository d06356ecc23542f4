"""Old threads are deleted, beside turns that go on; what is newer, running or locked stays."""

import asyncio
from contextlib import suppress

from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.retention import Retention, delete_old_threads
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import retention as sql
from tests.isolation.user_data import UserData, store_user_data
from tests.support.chat import stored
from tests.support.items import thread, user_message
from tests.support.sql import sql_connection


async def execute(store: DatabaseStore, *commands: str) -> None:
    async with sql_connection(store.database) as connection:
        for command in commands:
            await connection.execute(text(command))


async def make_old(store: DatabaseStore, where: str = "true") -> None:
    await execute(
        store,
        f"UPDATE chat_messages SET created_at = now() - interval '91 days' WHERE {where}",
        f"UPDATE chat_sessions SET created_at = now() - interval '91 days' WHERE {where}",
    )


async def threads(store: DatabaseStore) -> set[str]:
    return {row["thread_id"] for row in await stored(store, "SELECT thread_id FROM chat_sessions")}


async def test_threads_whose_newest_item_is_old_are_deleted(store: DatabaseStore) -> None:
    alice = RequestContext("alice")
    for name in ("old", "empty", "begun long ago", "locked", "closed", "running", "new"):
        await store.save_thread(thread(name), alice)
        if name != "empty":
            await store.add_thread_item(name, user_message(name, "m"), alice)
    running = RequestContext("alice", session=WriteSession("threads.add_user_message"))
    await store.add_thread_item("running", user_message("running", "m2"), running)
    await make_old(store, "session_id <> (SELECT session_id FROM chat_sessions WHERE thread_id = 'new')")
    await store.add_thread_item("begun long ago", user_message("begun long ago", "m2"), alice)
    for kind in ("locked", "closed"):
        status = f'{{"type"\\: "{kind}"}}'
        await execute(store, f"UPDATE chat_sessions SET status = '{status}' WHERE thread_id = '{kind}'")
    deleted: list[int] = []
    assert await delete_old_threads(store.database, Retention(90), lambda: deleted.append(1)) == len(deleted) == 2
    assert await threads(store) == {"begun long ago", "locked", "closed", "running", "new"}
    assert await delete_old_threads(store.database, Retention(90, keeps_locked=False)) == 2
    await store.turns.finish(running, Outcome("completed"))
    assert await delete_old_threads(store.database, Retention(90)) == 1
    assert await threads(store) == {"begun long ago", "new"}
    # The ledger keeps what was spent.
    assert await store.turns.usage_by_day(alice, days=7) != []


async def test_everything_of_a_thread_goes_with_it_and_its_files_are_marked(store: DatabaseStore) -> None:
    user_data = await store_user_data(store, UserData("alice", "MARK"))
    await execute(
        store,
        "UPDATE chat_attachments SET session_id = (SELECT session_id FROM chat_sessions"
        f" WHERE thread_id = '{user_data.thread}') WHERE state = 'ready'",
    )
    await make_old(store)
    assert await delete_old_threads(store.database, Retention(90)) == 3
    for table in ("messages", "feedback", "tool_calls", "approvals", "partial_log"):
        assert await stored(store, f"SELECT 1 FROM chat_{table}") == [], table
    assert {row["state"] for row in await stored(store, "SELECT state FROM chat_attachments")} == {"deleted"}


async def test_many_threads_and_long_ones_are_deleted_in_small_steps(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), RequestContext("alice"))
    await execute(
        store,
        "INSERT INTO chat_sessions (user_id, session_id, thread_id) SELECT 'alice', gen_random_uuid(), 't' || n"
        f" FROM generate_series(1, {2 * sql.PAGE + 10}) n",
        "INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type, item)"
        " SELECT 'alice', session_id, gen_random_uuid(), n, n, 'user', 'user_message', '{}'"
        f" FROM chat_sessions, generate_series(1, {2 * sql.BATCH}) n WHERE thread_id = 't'",
    )
    await make_old(store)
    await execute(
        store, "UPDATE chat_sessions SET created_at = now() WHERE thread_id LIKE 't_' OR thread_id LIKE 't_0'"
    )
    kept = await threads(store) - {"t"}
    newer = "SELECT thread_id FROM chat_sessions WHERE created_at > now() - interval '1 h'"
    before = {row["thread_id"] for row in await stored(store, newer)}
    assert before < kept
    await execute(store, "DELETE FROM chat_sessions WHERE thread_id LIKE 't_11%'")
    await delete_old_threads(store.database, Retention(90))
    assert await threads(store) == before
    assert await stored(store, "SELECT 1 FROM chat_messages") == []


async def test_a_message_that_is_written_while_the_lock_is_waited_for_keeps_its_thread(store: DatabaseStore) -> None:
    """Outside of a turn, as a stock server writes: no fence tells of it."""
    await store.save_thread(thread("t"), RequestContext("alice"))
    await store.add_thread_item("t", user_message("t", "m"), RequestContext("alice"))
    await make_old(store)
    async with sql_connection(store.database) as connection:
        await connection.execute(text("BEGIN"))
        await connection.execute(text("UPDATE chat_sessions SET next_position = next_position + 1"))
        await connection.execute(
            text(
                "INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type,"
                " item) SELECT user_id, session_id, gen_random_uuid(), 'new', 2, 'user', 'user_message', '{}'"
                " FROM chat_sessions"
            )
        )
        deleting = asyncio.create_task(delete_old_threads(store.database, Retention(90)))
        await asyncio.sleep(0.5)
        assert not deleting.done()
        await connection.execute(text("COMMIT"))
    assert await deleting == 0
    assert await threads(store) == {"t"}


async def test_a_message_that_comes_meanwhile_keeps_its_thread(store: DatabaseStore) -> None:
    alice = RequestContext("alice")
    for number in range(30):
        await store.save_thread(thread(f"t{number}"), alice)
        await store.add_thread_item(f"t{number}", user_message(f"t{number}", "m"), alice)
    await make_old(store)
    deleting = asyncio.create_task(delete_old_threads(store.database, Retention(90)))
    kept = set()
    for number in reversed(range(30)):
        turn = RequestContext("alice", session=WriteSession("threads.add_user_message"))
        with suppress(NotFound):
            await store.add_thread_item(f"t{number}", user_message(f"t{number}", "m2"), turn)
            kept.add(f"t{number}")
        await asyncio.sleep(0.01)
    await deleting
    assert await threads(store) == kept
    assert 0 < len(kept) < 30
