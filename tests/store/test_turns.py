"""Turns in the store: their fence, their partial answers, how they end, what settles, what a retry replaces."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from chatkit.types import ClientToolCallItem, ClosedStatus, HiddenContextItem, LockedStatus, ThreadItem
from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Conflict, Interrupted, NotFound, Superseded, ThreadNotActive, Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import PartialItem
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import stored
from tests.support.items import NAIVE, assistant_message, thread, user_message
from tests.support.sql import sql_connection

ALICE = SimpleNamespace(user_id="alice")
TOOL_OUTPUT = "threads.add_client_tool_output"


def in_turn(operation: str = "threads.add_user_message") -> RequestContext:
    return RequestContext(user_id="alice", session=WriteSession(operation))


class TestTurns:
    async def test_a_rename_during_a_turn_wins_over_the_turns_own_title(self, store: DatabaseStore) -> None:
        turn = in_turn("threads.create")
        streaming = thread("t")
        await store.threads.begin(streaming, user_message("t", "m"), turn)
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
        await store.threads.begin(streaming, user_message("t", "m"), turn)
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
        await store.threads.begin(streaming, user_message("t", "m"), turn)
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
        assert context.session is not None
        assert turn["turn_id"] == session["current_turn_id"] == context.session.turn_id
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
        assert context.session is not None
        assert not context.session.is_open

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
            store.delete_thread_item("t", "kept", older),
            store.save_thread(loaded, older),
        ):
            with pytest.raises(Superseded):
                await attempt
        assert not await checkpoint(store, assistant_message("t", "late"), older)
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
        assert await store.turns.finish(context, Outcome("completed", usage={"output_tokens": 3}))
        assert not await store.turns.finish(context, Outcome("failed"))
        (turn,) = await stored(store, "SELECT * FROM chat_turns")
        assert (turn["state"], turn["error_code"], turn["usage"]) == ("completed", None, {"output_tokens": 3})
        (session,) = await stored(store, "SELECT * FROM chat_sessions")
        assert session["current_turn_id"] is None

    async def test_the_end_of_an_older_turn_leaves_the_newer_ones_fence(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        older, newer = in_turn(), in_turn()
        await store.add_thread_item("t", user_message("t", "m1"), older)
        await store.add_thread_item("t", user_message("t", "m2"), newer)
        await store.turns.finish(older, Outcome("superseded"))
        await store.add_thread_item("t", assistant_message("t", "a"), newer)

    async def test_saving_what_this_turn_saved_needs_no_statement(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        before = await stored(store, "SELECT next_position FROM chat_sessions")
        await store.add_thread_item("t", user_message("t", "m"), context)
        assert await stored(store, "SELECT next_position FROM chat_sessions") == before


async def checkpoint(store: DatabaseStore, item: ThreadItem, context: RequestContext) -> bool:
    (is_saved,) = await store.partials.save_items([PartialItem(context, item)])
    return is_saved


class TestPartials:
    async def test_a_final_item_replaces_its_partial_and_never_the_reverse(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        for text_so_far in ("Once", "Once upon"):
            await checkpoint(store, assistant_message("t", "a", text_so_far), context)
            assert await store.load_item("t", "a", ALICE) == assistant_message("t", "a", text_so_far)
        (partial,) = await stored(store, "SELECT * FROM chat_messages WHERE item_id = 'a'")
        assert partial["is_partial"]
        await store.add_thread_item("t", assistant_message("t", "a", "Once upon a time"), context)
        await checkpoint(store, assistant_message("t", "a", "Once upon"), context)
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
            await checkpoint(store, assistant_message("t", "a", "Once"), older)
        await store.turns.open_retry("t", "m", newer)
        await store.add_thread_item("t", assistant_message("t", "new", "The new answer"), newer)
        return older

    @pytest.mark.parametrize("checkpointed", [True, False])
    async def test_an_answer_that_a_retry_replaced_does_not_come_back(
        self, store: DatabaseStore, checkpointed: bool
    ) -> None:
        older = await self.superseded(store, checkpointed=checkpointed)
        assert await store.turns.finish(
            older, Outcome("superseded"), unfinished=[assistant_message("t", "a", "Once upon")]
        )
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        assert [item.id for item in page.data] == ["m", "new"]

    @pytest.mark.parametrize("superseded", [True, False])
    async def test_unfinished_text_is_kept_where_its_checkpoint_was(
        self, store: DatabaseStore, superseded: bool
    ) -> None:
        await store.save_thread(thread("t"), ALICE)
        older = in_turn()
        await store.add_thread_item("t", user_message("t", "m1"), older)
        await checkpoint(store, assistant_message("t", "a", "Once"), older)
        if superseded:
            await store.add_thread_item("t", user_message("t", "m2"), in_turn())
        await store.turns.finish(older, Outcome("stopped"), unfinished=[assistant_message("t", "a", "Once upon")])
        page = await store.load_thread_items("t", None, 10, "asc", ALICE)
        assert [item.id for item in page.data] == ["m1", "a", "m2"][: 3 if superseded else 2]
        assert page.data[1] == assistant_message("t", "a", "Once upon")

    async def test_a_live_turn_that_was_taken_for_dead_learns_just_that(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        context = in_turn()
        await store.add_thread_item("t", user_message("t", "m"), context)
        await store.turns.heartbeat(context)
        await store.turns.close_stale("t", context, stale_seconds=0.0)
        with pytest.raises(Interrupted):
            await store.turns.heartbeat(context)


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
            *(store.turns.settle("t", self.call("completed", n), context) for n, context in enumerate(contexts)),
            return_exceptions=True,
        )
        await self.one_accepted(store, contexts, results)

    @pytest.mark.one_postgres
    async def test_an_output_that_waited_for_the_lock_is_told_that_it_came_late(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        contexts = [in_turn(TOOL_OUTPUT) for _ in range(4)]
        async with sql_connection(store.database, "READ COMMITTED") as holder, holder.begin():
            await holder.execute(text("SELECT 1 FROM chat_sessions FOR UPDATE"))
            writers = [
                asyncio.create_task(store.turns.settle("t", self.call("completed", n), context))
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
            contexts[winner].session.turn_id  # type: ignore[union-attr] # in_turn gave it one
        ]
        await store.add_thread_item("t", assistant_message("t", "a"), contexts[winner])

    async def test_the_same_output_is_accepted_again_after_its_turn_came_to_nothing(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        first = in_turn(TOOL_OUTPUT)
        await store.turns.settle("t", self.call("completed", "out"), first)
        with pytest.raises(Conflict):
            await store.turns.settle("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))
        await store.turns.finish(first, Outcome("failed"))
        with pytest.raises(Conflict):
            await store.turns.settle("t", self.call("completed", "another"), in_turn(TOOL_OUTPUT))
        second = in_turn(TOOL_OUTPUT)
        await store.turns.settle("t", self.call("completed", "out"), second)
        await store.turns.finish(second, Outcome("completed"))
        with pytest.raises(Conflict):
            await store.turns.settle("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))

    async def test_a_locked_thread_takes_no_output_and_a_strangers_is_not_found(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        stranger = RequestContext(user_id="bob", session=WriteSession(TOOL_OUTPUT))
        with pytest.raises(NotFound):
            await store.turns.settle("t", self.call("completed", "out"), stranger)
        await store.save_thread(thread("t", status=LockedStatus()), ALICE)
        with pytest.raises(ThreadNotActive):
            await store.turns.settle("t", self.call("completed", "out"), in_turn(TOOL_OUTPUT))
        assert await store.load_item("t", "c", ALICE) == self.call()

    async def test_another_turn_cannot_change_what_is_settled(self, store: DatabaseStore) -> None:
        await self.waiting(store)
        context = in_turn(TOOL_OUTPUT)
        await store.turns.settle("t", self.call("completed", "out"), context)
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
        message = await store.turns.open_retry("t", "m2", context)
        assert message == user_message("t", "m2")
        await store.add_thread_item("t", message, context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert await self.ids(store, context) == ["m1", "a1", "m2"]
        await checkpoint(store, assistant_message("t", "a3", "ne"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert await self.ids(store, context) == ["m1", "a1", "m2", "a3"]
        await store.add_thread_item("t", assistant_message("t", "a3", "new"), context)
        await store.add_thread_item("t", assistant_message("t", "a4", "and more"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a3", "a4"]

    async def test_an_update_of_an_earlier_item_does_not_replace_the_old_answer(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.turns.open_retry("t", "m2", context)
        await store.save_item("t", assistant_message("t", "a1", "changed"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        await store.add_thread_item("t", assistant_message("t", "a3", "new"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a3"]

    async def test_hidden_context_does_not_replace_the_old_answer(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.turns.open_retry("t", "m2", context)
        hidden = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="for the model")
        await store.add_thread_item("t", hidden, context)
        assert await self.ids(store) == ["m1", "a1", "m2", "a2"]
        assert await self.ids(store, context) == ["m1", "a1", "m2", "h"]
        await store.add_thread_item("t", assistant_message("t", "a3", "new"), context)
        assert await self.ids(store) == ["m1", "a1", "m2", "h", "a3"]

    async def test_a_draft_that_another_item_overtook_is_published_with_it(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.turns.open_retry("t", "m1", context)
        await checkpoint(store, assistant_message("t", "draft", "so f"), context)
        await store.add_thread_item("t", assistant_message("t", "final"), context)
        assert await self.ids(store) == ["m1", "draft", "final"]

    async def test_a_retry_that_ends_without_an_answer_leaves_the_old_one(self, store: DatabaseStore) -> None:
        await self.answered(store)
        context = in_turn("threads.retry_after_item")
        await store.turns.open_retry("t", "m1", context)
        await checkpoint(store, assistant_message("t", "a3", "ne"), context)
        await store.turns.finish(context, Outcome("failed"))
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
                await store.turns.open_retry(thread_id, item_id, in_turn("threads.retry_after_item"))
        assert await stored(store, "SELECT * FROM chat_sessions") == before
        stranger = RequestContext(user_id="bob", session=WriteSession("threads.retry_after_item"))
        with pytest.raises(NotFound):
            await store.turns.open_retry("t", "m1", stranger)
