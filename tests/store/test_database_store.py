"""The store on PostgreSQL: the contract of every store, and what only this one promises."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from chatkit.types import AssistantMessageItem, ClientToolCallItem, ClosedStatus, LockedStatus, ThreadMetadata
from sqlalchemy import URL, text

from app.context import RequestContext, Turn
from app.db import Database, Statement
from app.errors import Conflict, Interrupted, NotFound, Superseded, ThreadNotActive, Unprocessable
from app.store import DatabaseStore
from app.store.ids import session_uuid
from app.store.sql import items as sql
from tests.store.contract import StoreContract
from tests.support.chat import stored
from tests.support.items import NAIVE, assistant_message, thread, user_message

ALICE = SimpleNamespace(user_id="alice")
TOOL_OUTPUT = "threads.add_client_tool_output"


def in_turn(operation: str = "threads.add_user_message") -> RequestContext:
    return RequestContext(user_id="alice", turn=Turn(operation))


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
        await store.save_feedback("t", ["m"], "positive", ALICE)
        attachment = SimpleNamespace(id="a", thread_id="t", model_dump_json=lambda: '{"id": "a"}')
        await store.save_attachment(attachment, ALICE)  # type: ignore[arg-type] # only its row matters here
        await store.delete_thread("t", ALICE)
        assert await stored(store, "SELECT * FROM chat_feedback") == []
        assert [row["state"] for row in await stored(store, "SELECT state FROM chat_attachments")] == ["deleted"]

    async def test_a_context_without_a_user_is_refused(self, store: DatabaseStore) -> None:
        for context in (None, SimpleNamespace(), SimpleNamespace(user_id=""), SimpleNamespace(user_id=None)):
            with pytest.raises(TypeError):
                await store.load_threads(10, None, "desc", context)

    async def test_threads_made_in_the_same_instant_are_paged_without_gap_or_repetition(
        self, store: DatabaseStore
    ) -> None:
        for number in range(7):
            await store.save_thread(thread(f"t{number}"), ALICE)
        async with store.database.connection() as connection:
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


class TestTurns:
    async def test_a_rename_during_a_turn_wins_over_the_turns_own_title(self, store: DatabaseStore) -> None:
        turn = in_turn("threads.create")
        streaming = thread("t")
        await store.save_thread(streaming, turn)
        renaming = RequestContext(user_id="alice")
        renamed = await store.load_thread("t", renaming)
        renamed.title = "The user's own"
        await store.save_thread(renamed, renaming)
        streaming.title = "From the first message"
        streaming.metadata = {"set by": "the turn"}
        await store.save_thread(streaming, turn)
        stored = await store.load_thread("t", ALICE)
        assert (stored.title, stored.metadata) == ("The user's own", {"set by": "the turn"})
        # And what the SDK announces next is what is stored.
        assert streaming.title == "The user's own"

    async def test_a_lock_and_metadata_set_during_a_turn_win_over_the_turns_own(self, store: DatabaseStore) -> None:
        turn = in_turn("threads.create")
        streaming = thread("t")
        await store.save_thread(streaming, turn)
        moderator = RequestContext(user_id="alice")
        locked = await store.load_thread("t", moderator)
        locked.status, locked.metadata = LockedStatus(reason="enough"), {"by": "moderator"}
        await store.save_thread(locked, moderator)
        streaming.status, streaming.metadata = ClosedStatus(), {"by": "turn"}
        await store.save_thread(streaming, turn)
        stored_thread = await store.load_thread("t", ALICE)
        assert (stored_thread.status, stored_thread.metadata) == (LockedStatus(reason="enough"), {"by": "moderator"})

    async def test_a_request_writes_only_the_fields_it_changed(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t", title="old", metadata={"n": 1}), ALICE)
        first, second = RequestContext(user_id="alice"), RequestContext(user_id="alice")
        one, two = await store.load_thread("t", first), await store.load_thread("t", second)
        one.title = "new"
        two.metadata = {"n": 2}
        await store.save_thread(one, first)
        await store.save_thread(two, second)
        stored = await store.load_thread("t", ALICE)
        assert (stored.title, stored.metadata) == ("new", {"n": 2})

    async def test_a_thread_deleted_meanwhile_does_not_come_back(self, store: DatabaseStore) -> None:
        turn = in_turn("threads.create")
        streaming = thread("t")
        await store.save_thread(streaming, turn)
        await store.delete_thread("t", ALICE)
        streaming.title = "too late"
        with pytest.raises(NotFound):
            await store.save_thread(streaming, turn)
        with pytest.raises(NotFound):
            await store.add_thread_item("t", assistant_message("t", "m"), turn)
        assert await stored(store, "SELECT * FROM chat_sessions") == []

    async def test_the_first_write_opens_the_turn(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        (turn,) = await stored(store, "SELECT * FROM chat_turns")
        (session,) = await stored(store, "SELECT * FROM chat_sessions")
        assert context.turn is not None
        assert turn["turn_id"] == session["current_turn_id"] == context.turn.id
        assert (turn["state"], turn["operation"], turn["ended_at"]) == ("running", "threads.add_user_message", None)

    async def test_a_write_refused_by_the_database_opens_no_turn(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t", status=LockedStatus()), ALICE)
        context = in_turn()
        with pytest.raises(ThreadNotActive):
            await store.add_thread_item("t", user_message("t", "m"), context)
        with pytest.raises(NotFound):
            await store.add_thread_item("absent", user_message("absent", "m"), context)
        assert await stored(store, "SELECT * FROM chat_turns") == []
        assert await stored(store, "SELECT * FROM chat_messages") == []
        assert context.turn is not None
        assert not context.turn.is_open

    async def test_a_newer_turn_fences_every_write_of_the_older(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        older, newer = in_turn(), in_turn()
        loaded = await store.load_thread("t", older)
        await store.add_thread_item("t", user_message("t", "m1"), older)
        await store.add_thread_item("t", assistant_message("t", "kept"), older)
        await store.add_thread_item("t", user_message("t", "m2"), newer)
        loaded.title = "late"
        for attempt in (
            store.add_thread_item("t", assistant_message("t", "late"), older),
            store.save_item("t", assistant_message("t", "kept", "late"), older),
            store.checkpoint("t", assistant_message("t", "late"), older),
            store.delete_thread_item("t", "kept", older),
            store.save_thread(loaded, older),
        ):
            with pytest.raises(Superseded):
                await attempt
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        assert page.data == [user_message("t", "m1"), assistant_message("t", "kept"), user_message("t", "m2")]
        assert (await store.load_thread("t", ALICE)).title is None

    async def test_of_many_turns_that_start_at_once_exactly_one_holds_the_thread(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        turns = [in_turn() for _ in range(8)]
        await asyncio.gather(
            *(store.add_thread_item("t", user_message("t", f"m{n}"), turn) for n, turn in enumerate(turns))
        )
        answers = await asyncio.gather(
            *(store.add_thread_item("t", assistant_message("t", f"a{n}"), turn) for n, turn in enumerate(turns)),
            return_exceptions=True,
        )
        assert sorted(str(type(answer).__name__) for answer in answers) == ["NoneType"] + ["Superseded"] * 7

    async def test_a_turn_ends_once(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        assert context.turn is not None
        context.turn.usage = {"output_tokens": 3}
        assert await store.finish_turn(context, "completed")
        assert not await store.finish_turn(context, "failed")
        (turn,) = await stored(store, "SELECT * FROM chat_turns")
        assert (turn["state"], turn["error_code"], turn["usage"]) == ("completed", None, {"output_tokens": 3})
        (session,) = await stored(store, "SELECT * FROM chat_sessions")
        assert session["current_turn_id"] is None

    async def test_the_end_of_an_older_turn_leaves_the_newer_ones_fence(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        older, newer = in_turn(), in_turn()
        await store.add_thread_item("t", user_message("t", "m1"), older)
        await store.add_thread_item("t", user_message("t", "m2"), newer)
        await store.finish_turn(older, "superseded")
        await store.add_thread_item("t", assistant_message("t", "a"), newer)

    async def test_saving_what_this_turn_saved_needs_no_statement(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        before = await stored(store, "SELECT next_position FROM chat_sessions")
        await store.add_thread_item("t", user_message("t", "m"), context)
        assert await stored(store, "SELECT next_position FROM chat_sessions") == before


class TestPartials:
    async def test_a_final_item_replaces_its_partial_and_never_the_reverse(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        for text_so_far in ("Once", "Once upon"):
            await store.checkpoint("t", assistant_message("t", "a", text_so_far), context)
            assert await store.load_item("t", "a", ALICE) == assistant_message("t", "a", text_so_far)
        (partial,) = await stored(store, "SELECT * FROM chat_messages WHERE item_id = 'a'")
        assert partial["is_partial"]
        await store.add_thread_item("t", assistant_message("t", "a", "Once upon a time"), context)
        await store.checkpoint("t", assistant_message("t", "a", "Once upon"), context)
        assert await store.load_item("t", "a", ALICE) == assistant_message("t", "a", "Once upon a time")
        (final,) = await stored(store, "SELECT * FROM chat_messages WHERE item_id = 'a'")
        assert not final["is_partial"]
        assert final["position"] == partial["position"]


class TestTheEndOfATurn:
    async def superseded(self, store: DatabaseStore, *, checkpointed: bool) -> RequestContext:
        await store.save_thread(thread("t"), ALICE)
        older, newer = in_turn(), in_turn("threads.retry_after_item")
        await store.add_thread_item("t", user_message("t", "m"), older)
        if checkpointed:
            await store.checkpoint("t", assistant_message("t", "a", "Once"), older)
        await store.open_retry("t", "m", newer)
        await store.add_thread_item("t", assistant_message("t", "new", "The new answer"), newer)
        return older

    @pytest.mark.parametrize("checkpointed", [True, False])
    async def test_an_answer_that_a_retry_replaced_does_not_come_back(
        self, store: DatabaseStore, checkpointed: bool
    ) -> None:
        older = await self.superseded(store, checkpointed=checkpointed)
        assert await store.finish_turn(older, "superseded", unfinished=[assistant_message("t", "a", "Once upon")])
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        assert [item.id for item in page.data] == ["m", "new"]

    @pytest.mark.parametrize("superseded", [True, False])
    async def test_unfinished_text_is_kept_where_its_checkpoint_was(
        self, store: DatabaseStore, superseded: bool
    ) -> None:
        await store.save_thread(thread("t"), ALICE)
        older = in_turn()
        await store.add_thread_item("t", user_message("t", "m1"), older)
        await store.checkpoint("t", assistant_message("t", "a", "Once"), older)
        if superseded:
            await store.add_thread_item("t", user_message("t", "m2"), in_turn())
        await store.finish_turn(older, "stopped", unfinished=[assistant_message("t", "a", "Once upon")])
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        assert [item.id for item in page.data] == ["m1", "a", "m2"][: 3 if superseded else 2]
        assert page.data[1] == assistant_message("t", "a", "Once upon")

    async def test_a_live_turn_that_was_taken_for_dead_learns_just_that(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        await store.heartbeat(context)
        await store.close_stale_turns("t", context, stale_seconds=0.0)
        with pytest.raises(Interrupted):
            await store.heartbeat(context)


class TestSettledItems:
    @staticmethod
    def call(status: Any = "pending", output: Any = None) -> ClientToolCallItem:
        return ClientToolCallItem(
            id="c", thread_id="t", created_at=NAIVE, call_id="1", name="n", arguments={}, status=status, output=output
        )

    @staticmethod
    async def waiting(store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.add_thread_item("t", TestSettledItems.call(), ALICE)

    async def test_of_many_outputs_at_once_exactly_one_is_accepted_and_keeps_the_thread(
        self, store: DatabaseStore
    ) -> None:
        await self.waiting(store)
        contexts = [in_turn(TOOL_OUTPUT) for _ in range(4)]
        results = await asyncio.gather(
            *(store.settle_item("t", self.call("completed", n), context) for n, context in enumerate(contexts)),
            return_exceptions=True,
        )
        await self.one_accepted(store, contexts, results)

    async def test_an_output_that_waited_for_the_lock_is_told_that_it_came_late(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        contexts = [in_turn(TOOL_OUTPUT) for _ in range(4)]
        async with store.database.engine.execution_options(isolation_level="READ COMMITTED").begin() as holder:
            await holder.execute(text("SELECT 1 FROM chat_sessions FOR UPDATE"))
            writers = [
                asyncio.create_task(store.settle_item("t", self.call("completed", n), context))
                for n, context in enumerate(contexts)
            ]
            waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            while (await stored(store, waiting))[0]["n"] < 4:  # noqa: ASYNC110 - the event is PostgreSQL's
                await asyncio.sleep(0.01)
        await self.one_accepted(store, contexts, await asyncio.gather(*writers, return_exceptions=True))

    async def one_accepted(self, store: DatabaseStore, contexts: list[RequestContext], results: list[Any]) -> None:
        assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["NoneType"]
        winner = results.index(None)
        accepted: Any = await store.load_item("t", "c", ALICE)
        assert accepted.output == winner
        assert [row["turn_id"] for row in await stored(store, "SELECT * FROM chat_turns")] == [
            contexts[winner].turn.id  # type: ignore[union-attr] # in_turn gave it one
        ]
        await store.add_thread_item("t", assistant_message("t", "a"), contexts[winner])

    async def test_the_same_output_is_accepted_again_after_its_turn_came_to_nothing(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        first = in_turn(TOOL_OUTPUT)
        await store.settle_item("t", self.call("completed", "out"), first)
        with pytest.raises(Conflict):
            await store.settle_item("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))
        await store.finish_turn(first, "failed")
        with pytest.raises(Conflict):
            await store.settle_item("t", self.call("completed", "another"), in_turn(TOOL_OUTPUT))
        second = in_turn(TOOL_OUTPUT)
        await store.settle_item("t", self.call("completed", "out"), second)
        await store.finish_turn(second, "completed")
        with pytest.raises(Conflict):
            await store.settle_item("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))

    async def test_a_locked_thread_takes_no_output_and_a_strangers_is_not_found(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        stranger = RequestContext(user_id="bob", turn=Turn(TOOL_OUTPUT))
        with pytest.raises(NotFound):
            await store.settle_item("t", self.call("completed", "out"), stranger)
        await store.save_thread(thread("t", status=LockedStatus()), ALICE)
        with pytest.raises(ThreadNotActive):
            await store.settle_item("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))
        assert await store.load_item("t", "c", ALICE) == self.call()

    async def test_another_turn_cannot_change_what_is_settled(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        context = in_turn(TOOL_OUTPUT)
        await store.settle_item("t", self.call("completed", "out"), context)
        await store.save_item("t", self.call("completed", "out"), context)
        with pytest.raises(Conflict):
            await store.save_item("t", self.call("completed", "other"), in_turn())


class TestRetry:
    async def answered(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        for item in (
            user_message("t", "m1"),
            assistant_message("t", "a1"),
        ):
            await store.add_thread_item("t", item, context)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m2"), context)
        await store.add_thread_item("t", assistant_message("t", "a2", "old"), context)

    async def ids(self, store: DatabaseStore, context: Any = ALICE) -> list[str]:
        return [item.id for item in (await store.load_thread_items("t", None, 100, "asc", context)).data]

    async def test_the_old_answer_stays_until_the_new_one_is_there(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        message = await store.open_retry("t", "m2", context)
        assert message == user_message("t", "m2")
        await store.add_thread_item("t", message, context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert await self.ids(store, context) == ["m1", "a1", "m2"]
        await store.checkpoint("t", assistant_message("t", "a3", "ne"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert await self.ids(store, context) == ["m1", "a1", "m2", "a3"]
        await store.add_thread_item("t", assistant_message("t", "a3", "new"), context)
        await store.add_thread_item("t", assistant_message("t", "a4", "and more"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a3", "a4"]

    async def test_a_draft_that_another_item_overtook_is_published_with_it(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.open_retry("t", "m1", context)
        await store.checkpoint("t", assistant_message("t", "draft", "so f"), context)
        await store.add_thread_item("t", assistant_message("t", "final"), context)
        assert await self.ids(store) == ["m1", "draft", "final"]

    async def test_a_retry_that_ends_without_an_answer_leaves_the_old_one(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.open_retry("t", "m1", context)
        await store.checkpoint("t", assistant_message("t", "a3", "ne"), context)
        await store.finish_turn(context, "failed")
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert [row["n"] for row in await stored(store, "SELECT count(*) AS n FROM chat_messages")] == [4]

    async def test_what_cannot_be_retried_is_refused_and_opens_no_turn(self, store: DatabaseStore) -> None:
        await self.answered(store)
        before = await stored(store, "SELECT * FROM chat_sessions")
        for thread_id, item_id, refusal in (
            ("t", "a1", Unprocessable),
            ("t", "absent", NotFound),
            ("absent", "m1", NotFound),
        ):
            with pytest.raises(refusal):
                await store.open_retry(thread_id, item_id, in_turn("threads.retry_after_item"))
        assert await stored(store, "SELECT * FROM chat_sessions") == before
        stranger = RequestContext(user_id="bob", turn=Turn("threads.retry_after_item"))
        with pytest.raises(NotFound):
            await store.open_retry("t", "m1", stranger)


class TestFeedback:
    async def test_the_latest_opinion_wins(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        for item_id in ("a", "b"):
            await store.add_thread_item("t", assistant_message("t", item_id), ALICE)
        await store.save_feedback("t", ["a", "b", "a"], "positive", ALICE)
        await store.save_feedback("t", ["b"], "negative", ALICE)
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
                await store.save_feedback(thread_id, item_ids, "positive", context)
        assert await stored(store, "SELECT * FROM chat_feedback") == []


async def test_a_page_is_read_from_an_index_and_not_by_walking_the_thread(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    item = user_message("t", "m").model_dump_json()
    async with store.database.connection() as connection:
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
    explain = Statement("explain", f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.LIST_ITEMS_NEWEST_FIRST.sql}")
    (plan,) = await store.database.run(
        "alice", explain, session=session_uuid("t"), after=None, page=21, turn=None, retry_from=None
    )
    nodes = [*plan_nodes(plan["QUERY PLAN"][0]["Plan"])]
    assert "chat_messages_position_key" in {node.get("Index Name") for node in nodes}
    assert max(node["Actual Rows"] for node in nodes) <= 21


def plan_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from plan_nodes(child)


async def test_a_thread_returned_by_the_store_has_the_sdks_type(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    assert type(await store.load_thread("t", ALICE)) is ThreadMetadata
    await store.add_thread_item("t", assistant_message("t", "a"), ALICE)
    assert type(await store.load_item("t", "a", ALICE)) is AssistantMessageItem
