"""The store on PostgreSQL: the contract of every store, and what only this one promises."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from chatkit.types import AssistantMessageItem, ThreadMetadata
from sqlalchemy import URL, text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.item_writer import OutsideWrite
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import items as sql
from chatkit_postgres.store.sql.history import LOAD_NEWEST_ITEMS
from tests.store.contract import StoreContract
from tests.support.chat import stored
from tests.support.items import assistant_message, thread, user_message
from tests.support.sql import sql_connection

ALICE = SimpleNamespace(user_id="alice")
TOOL_OUTPUT = "threads.add_client_tool_output"


def in_turn(operation: str = "threads.add_user_message") -> RequestContext:
    return RequestContext(user_id="alice", session=WriteSession(operation))


class TestContract(StoreContract):
    @pytest.fixture
    def store(self, database: Database) -> DatabaseStore:
        return DatabaseStore(database)


class TestRows:
    async def test_a_row_can_be_read_by_people(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.add_thread_item("t", user_message("t", "m", "What a day"), ALICE)
        (row,) = await stored(store, "SELECT * FROM chat_messages")
        assert row["session_id"] == uuid5(NAMESPACE_DNS, "chatkit-t")
        assert row["message_id"] == uuid5(row["session_id"], "m")
        assert (row["item_id"], row["sender_type"], row["content"]) == ("m", "user", "What a day")
        assert row["item"] == json.loads(user_message("t", "m", "What a day").model_dump_json())

    async def test_the_users_row_comes_with_the_first_thread(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.save_thread(thread("u"), ALICE)
        assert [row["user_id"] for row in await stored(store, "SELECT * FROM chat_users")] == ["alice"]

    async def test_deleting_a_thread_takes_its_feedback_and_marks_its_attachments(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.add_thread_item("t", assistant_message("t", "m"), ALICE)
        await store.items.save_feedback("t", ["m"], "positive", ALICE)
        attachment = SimpleNamespace(id="a", thread_id="t", model_dump_json=lambda: '{"id": "a"}')
        await store.save_attachment(attachment, ALICE)  # type: ignore[arg-type] # only its row matters here
        await store.delete_thread("t", ALICE)
        assert await stored(store, "SELECT * FROM chat_feedback") == []
        assert [row["state"] for row in await stored(store, "SELECT state FROM chat_attachments")] == ["deleted"]

    async def test_a_context_without_a_user_is_refused(self, store: DatabaseStore) -> None:
        for context in (None, SimpleNamespace(), SimpleNamespace(user_id=""), SimpleNamespace(user_id=None)):
            with pytest.raises(TypeError):
                await store.load_threads(10, None, "desc", context)  # type: ignore[arg-type] # what is to be refused

    async def test_threads_made_in_the_same_instant_are_paged_without_gap_or_repetition(
        self, store: DatabaseStore
    ) -> None:
        for number in range(7):
            await store.save_thread(thread(f"t{number}"), ALICE)
        async with sql_connection(store.database) as connection:
            await connection.execute(text("UPDATE chat_sessions SET created_at = '2026-01-01'"))
        for order in ("asc", "desc"):
            seen: list[str] = []
            after: str | None = None
            while after is not None or not seen:
                page = await store.load_threads(3, after, order, ALICE)
                seen += [found.id for found in page.data]
                after = page.after
            assert sorted(seen) == [f"t{number}" for number in range(7)]


class TestConnections:
    def test_a_store_needs_no_event_loop_and_no_database_to_construct(self) -> None:
        DatabaseStore(Database("postgresql://nobody@127.0.0.1:1/none"))

    def test_an_unpooled_database_serves_a_new_event_loop_on_each_call(self, database_url: URL) -> None:
        store = DatabaseStore(Database(database_url, pooled=False))
        asyncio.run(store.save_thread(thread("t"), ALICE))
        for number in range(3):
            asyncio.run(store.add_thread_item("t", user_message("t", f"m{number}"), ALICE))
        assert len(asyncio.run(store.load_thread_items("t", None, 10, "asc", ALICE)).data) == 3


class TestFeedback:
    async def test_the_latest_opinion_wins(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        for item_id in ("a", "b"):
            await store.add_thread_item("t", assistant_message("t", item_id), ALICE)
        await store.items.save_feedback("t", ["a", "b", "a"], "positive", ALICE)
        await store.items.save_feedback("t", ["b"], "negative", ALICE)
        kinds = await stored(
            store,
            "SELECT item_id, kind FROM chat_feedback JOIN chat_messages USING (user_id, session_id, message_id)"
            " ORDER BY item_id",
        )
        assert [(row["item_id"], row["kind"]) for row in kinds] == [("a", "positive"), ("b", "negative")]

    async def test_feedback_on_one_item_that_is_not_there_saves_none(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.save_thread(thread("u"), ALICE)
        await store.add_thread_item("t", assistant_message("t", "a"), ALICE)
        await store.add_thread_item("u", assistant_message("u", "b"), ALICE)
        for thread_id, item_ids, context in (
            ("t", ["a", "b"], ALICE),
            ("t", ["absent"], ALICE),
            ("t", ["a"], SimpleNamespace(user_id="bob")),
        ):
            with pytest.raises(NotFound):
                await store.items.save_feedback(thread_id, item_ids, "positive", context)
        assert await stored(store, "SELECT * FROM chat_feedback") == []


@pytest.mark.one_postgres
async def test_a_page_is_read_from_an_index_and_not_by_walking_the_thread(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    item = user_message("t", "m").model_dump_json()
    async with sql_connection(store.database) as connection:
        await connection.execute(
            text(
                "INSERT INTO chat_messages"
                " (user_id, session_id, message_id, item_id, position, sender_type, item_type, item)"
                " SELECT 'alice', session_id, gen_random_uuid(), n::text, n, 'user', 'user_message',"
                " CAST(:item AS jsonb) FROM chat_sessions, generate_series(1, 5000) n"
            ),
            {"item": item},
        )
        await connection.execute(text("ANALYZE chat_messages"))
    explain = Statement(
        "explain",
        f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.LIST_ITEMS_NEWEST_FIRST.sql}",
        **sql.LIST_ITEMS_NEWEST_FIRST.types,
    )
    given = {"session": session_uuid("t"), "after": None, "after_position": None, "page": 21}
    given |= {"with_hidden": False, "turn": None, "retry_from": None}
    (plan,) = await store.database.run("alice", explain, **given)
    nodes = [*plan_nodes(json.loads(plan["QUERY PLAN"])[0]["Plan"])]
    assert "chat_messages_position_key" in {node.get("Index Name") for node in nodes}
    assert max(node["Actual Rows"] for node in nodes) <= 21


async def test_the_verdicts_on_a_thread_are_read_once_however_many_there_are(store: DatabaseStore) -> None:
    """Every second turn came to nothing before its verdict, the others were refused."""
    turns = 1000
    await store.save_thread(thread("t"), ALICE)
    async with sql_connection(store.database) as connection:
        await connection.execute(
            text(
                "WITH made AS (INSERT INTO chat_turns"
                " (user_id, session_id, turn_id, operation, state, error_code, started_at, ended_at)"
                " SELECT 'alice', session_id, gen_random_uuid(), 'threads.add_user_message', 'failed',"
                " CASE WHEN n % 2 = 0 THEN 'input_guardrail_tripped' END,"
                " now() - make_interval(secs => 5000 - n), now()"
                " FROM chat_sessions, generate_series(1, :turns) n RETURNING session_id, turn_id, started_at)"
                " INSERT INTO chat_messages"
                " (user_id, session_id, message_id, item_id, position, sender_type, item_type, item, turn_id)"
                " SELECT 'alice', session_id, gen_random_uuid(), turn_id::text,"
                " row_number() OVER (ORDER BY started_at), 'user', 'user_message', CAST(:item AS jsonb), turn_id"
                " FROM made"
            ),
            {"item": user_message("t", "m").model_dump_json(), "turns": turns},
        )
        await connection.execute(text("ANALYZE chat_messages, chat_turns"))
    explain = Statement("explain", f"EXPLAIN (ANALYZE, FORMAT JSON) {LOAD_NEWEST_ITEMS.sql}", **LOAD_NEWEST_ITEMS.types)
    given = {"session": session_uuid("t"), "page": 101, "max_bytes": 100_000, "turn": None, "retry_from": None}
    given |= {"max_current": 1000, "max_output": 25_000, "cut_mark": ""}
    given |= {"max_calls": 200, "max_call_bytes": 32_000, "max_call_output": 8_000}
    (plan,) = await store.database.run("alice", explain, **given)
    nodes = [*plan_nodes(json.loads(plan["QUERY PLAN"])[0]["Plan"])]
    visited = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes
    )
    assert visited < 20 * turns
    assert (await store.history.load_newest("t", HistoryLimits(), ALICE)).items == []


def plan_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from plan_nodes(child)


async def test_a_thread_returned_by_the_store_has_the_sdks_type(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    assert type(await store.load_thread("t", ALICE)) is ThreadMetadata
    await store.add_thread_item("t", assistant_message("t", "a"), ALICE)
    assert type(await store.load_item("t", "a", ALICE)) is AssistantMessageItem


class TestInterruptedWrites:
    """Outside of a turn a write goes on when its caller is cancelled; what the caller writes next is not lost by it."""

    async def test_what_is_saved_after_a_time_out_counts(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await self._time_out(store, store.save_item("t", assistant_message("t", "m", "one"), ALICE))
        await store.save_item("t", assistant_message("t", "m", "one, two"), ALICE)
        assert await self._texts(store) == ["one, two"]

    async def test_what_is_added_again_after_it_was_deleted_is_there(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await self._time_out(store, store.add_thread_item("t", assistant_message("t", "m", "one"), ALICE))
        await store.writer.detached.wait()
        await store.delete_thread_item("t", "m", ALICE)
        await store.add_thread_item("t", assistant_message("t", "m", "one"), ALICE)
        assert await self._texts(store) == ["one"]

    async def test_another_text_is_another_item(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await self._time_out(store, store.add_thread_item("t", assistant_message("t", "m", "one"), ALICE))
        await store.add_thread_item("t", assistant_message("t", "m", "two"), ALICE)
        assert await self._texts(store) == ["one", "two"]

    async def test_what_is_a_part_of_it_is_not_added_again(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await self._time_out(store, store.add_thread_item("t", assistant_message("t", "m", "one"), ALICE))
        await store.add_thread_item("t", assistant_message("t", "m", "on"), ALICE)
        assert await self._texts(store) == ["one"]

    async def test_a_write_that_failed_is_made_by_the_next_attempt(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.save_thread(thread("gone"), ALICE)
        # Deleted while the lock is held: the write comes too late.
        item = assistant_message("t", "m", "one")
        with pytest.raises(asyncio.CancelledError):
            await store.writer.detached.run(
                OutsideWrite("alice", "t", item, replace=False), self._cancelled_and_failing
            )
        await store.add_thread_item("t", item, ALICE)
        assert await self._texts(store) == ["one"]

    @staticmethod
    async def _cancelled_and_failing(_: object) -> None:
        caller = next(task for task in asyncio.all_tasks() if "test_a_write_that_failed" in repr(task.get_coro()))
        caller.cancel()
        await asyncio.sleep(0.05)
        caller.uncancel()
        raise NotFound

    @staticmethod
    async def _time_out(store: DatabaseStore, write: Any) -> None:
        """Cancel a write that waits for a lock, and let it go on."""
        async with sql_connection(store.database) as connection:
            await connection.execute(text("BEGIN"))
            await connection.execute(text("LOCK TABLE chat_messages IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await write
            await connection.execute(text("COMMIT"))

    @staticmethod
    async def _texts(store: DatabaseStore) -> list[str]:
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        return ["".join(part.text for part in item.content) for item in page.data]  # type: ignore[union-attr]
