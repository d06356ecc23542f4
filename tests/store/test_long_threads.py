"""What a thread of thousands of items costs, with the plans that a connection uses after a while."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from chatkit_postgres.db import Statement
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.sql import history, items, live, turns
from tests.support.items import thread
from tests.support.sql import sql_connection

ITEMS = 5000
SESSION = session_uuid("t")
ALICE = SimpleNamespace(user_id="alice")

VALUES: dict[str, Any] = {
    "owner": "alice",
    "session": SESSION,
    "message": message_uuid(SESSION, "m7"),
    "after": message_uuid(SESSION, "m4000"),
    "with_hidden": True,
    "page": 21,
    "stale_seconds": 60,
    "max_current": 1000,
    "max_bytes": 128_000,
    "max_output": 32_000,
    "max_calls": 200,
    "max_call_bytes": 32_000,
    "max_call_output": 8_000,
    "cut_mark": "?",
}


async def long_thread(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    async with sql_connection(store.database) as connection:
        await connection.execute(
            text(
                "INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type,"
                " item) SELECT 'alice', :session, gen_random_uuid(), 'm' || n, n, 'user', 'user_message', '{}'"
                " FROM generate_series(1, :count) n"
            ),
            {"session": SESSION, "count": ITEMS},
        )
        # Threads of others, by which the planner judges.
        await connection.execute(
            text(
                "WITH owners AS (INSERT INTO chat_users (user_id) SELECT 'o' || n FROM generate_series(1, 3000) n"
                " RETURNING user_id), threads AS (INSERT INTO chat_sessions (user_id, session_id, thread_id)"
                " SELECT user_id, gen_random_uuid(), 't' FROM owners RETURNING user_id, session_id)"
                " INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type,"
                " item_type, item) SELECT user_id, session_id, gen_random_uuid(), 'm' || n, n, 'user',"
                " 'user_message', '{}' FROM threads, generate_series(1, 10) n"
            )
        )
        await connection.execute(
            text("UPDATE chat_messages SET message_id = :id WHERE item_id = 'm4000'"), {"id": VALUES["after"]}
        )
        await connection.execute(text("VACUUM ANALYZE chat_messages"))


async def blocks_read(store: DatabaseStore, statement: Statement) -> int:
    """The blocks that one execution touches."""

    def literal(name: str) -> str:
        value = VALUES.get(name)
        return "NULL" if value is None else f"'{value}'"

    arguments = ", ".join(literal(name) for name in statement.parameters)
    async with sql_connection(store.database) as connection:
        await connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        await connection.exec_driver_sql(f"PREPARE p AS {re.sub('^/.*?/', '', statement.driver_sql)}")
        explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE p({arguments})")
        found = explained.scalar_one()
    (plan,) = json.loads(found) if isinstance(found, str) else found
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize(
    "statement",
    [
        items.LIST_ITEMS_NEWEST_FIRST,
        items.LIST_ITEMS_OLDEST_FIRST,
        items.LOAD_ITEM,
        items.DELETE_ITEM,
        turns.FIND_RETRIED_MESSAGE,
        live.FIND_RUNNING_TURN,
    ],
    ids=lambda statement: str(statement.name),
)
@pytest.mark.one_postgres
async def test_an_item_is_found_without_reading_the_others(store: DatabaseStore, statement: Statement) -> None:
    await long_thread(store)
    assert await blocks_read(store, statement) < 60


@pytest.mark.one_postgres
async def test_a_thread_of_thousands_of_calls_costs_a_model_no_more(store: DatabaseStore) -> None:
    await long_thread(store)
    few = await blocks_read(store, history.LOAD_NEWEST_ITEMS)
    async with sql_connection(store.database) as connection:
        await connection.execute(
            text(
                "INSERT INTO chat_tool_calls (user_id, session_id, position, sequence, turn_id, name, arguments,"
                " output) SELECT 'alice', :session, n, 0, gen_random_uuid(), 'look', '{}', repeat('x', 1000)"
                " FROM generate_series(1, :count) n"
            ),
            {"session": SESSION, "count": ITEMS},
        )
        await connection.execute(text("VACUUM ANALYZE chat_tool_calls"))
    assert await blocks_read(store, history.LOAD_NEWEST_ITEMS) < few + 100
    found = await store.history.load_newest("t", HistoryLimits(), ALICE)
    calls = [call for placed in found.calls.values() for call in placed]
    assert 20 < len(calls) <= 32
    assert sum(len(call.output) for call in calls) <= 32_000
    assert calls[-1].id == f"{ITEMS}-0"
