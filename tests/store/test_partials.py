"""Unfinished items: their partial rows, and the log of the text that is newer."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from chatkit.types import Annotation, AssistantMessageContent, AssistantMessageItem, URLSource
from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Statement
from chatkit_postgres.errors import Interrupted, NotFound, Superseded
from chatkit_postgres.store import DatabaseStore, maintenance
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import Checkpoint, LogEntry, PartialItem
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import partials
from tests.support.chat import stored
from tests.support.items import assistant_message, thread, user_message
from tests.support.owners import run_apart
from tests.support.sql import sql_connection

CITATION = Annotation(source=URLSource(title="A page", url="https://example.test/page"), index=3)


@pytest.fixture(params=[False, True], ids=["together", "apart"], autouse=True)
def apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all owners at once, and for each of them, as in a cluster; the SQL of both runs on one PostgreSQL."""
    if request.param and request.node.get_closest_marker("one_postgres") is None:
        run_apart(monkeypatch)


async def in_turn(store: DatabaseStore, user: str = "alice", thread_id: str = "t") -> RequestContext:
    """A turn whose message is saved."""
    context = RequestContext(user_id=user, session=WriteSession("threads.add_user_message"))
    await store.save_thread(thread(thread_id), RequestContext(user_id=user))
    await store.add_thread_item(thread_id, user_message(thread_id, "m"), context)
    return context


async def partial(store: DatabaseStore, context: RequestContext, words: str, thread_id: str = "t") -> bool:
    (is_saved,) = await store.partials.save_items([PartialItem(context, assistant_message(thread_id, "a", words))])
    return is_saved


async def append(store: DatabaseStore, context: RequestContext, *entries: LogEntry) -> dict[Any, Any]:
    return dict((await store.partials.checkpoint([Checkpoint(context, entries)], with_heartbeat=False)).lost)


def entry(sequence: int, start: int, words: str) -> LogEntry:
    return LogEntry("a", sequence, 0, start, words)


async def answered_so_far(store: DatabaseStore, user: str = "alice") -> str:
    """What every read of the thread shows of the answer."""
    context = RequestContext(user_id=user)
    loaded = await store.load_item("t", "a", context)
    page = await store.load_thread_items("t", None, 10, "desc", context)
    newest = await store.history.load_newest("t", HistoryLimits(), context)
    assert isinstance(loaded, AssistantMessageItem)
    assert loaded == page.data[0] == newest.items[-1]
    return loaded.content[0].text


async def log(store: DatabaseStore) -> list[dict[str, Any]]:
    return await stored(store, "SELECT user_id, sequence, start, text FROM chat_partial_log ORDER BY user_id, sequence")


async def grown(store: DatabaseStore, user: str = "alice") -> RequestContext:
    """A turn with the text "Once upon a time", of which the row has "Once"."""
    context = await in_turn(store, user)
    assert await partial(store, context, "Once")
    assert await append(store, context, entry(1, 4, " upon"), entry(2, 9, " a time")) == {}
    return context


class TestReads:
    async def test_every_read_shows_the_text_so_far(self, store: DatabaseStore) -> None:
        await grown(store)
        assert await answered_so_far(store) == "Once upon a time"

    async def test_an_entry_that_was_repeated_with_more_text_counts_once(self, store: DatabaseStore) -> None:
        """As after a lost connection, when it is unknown whether the first was committed."""
        context = await in_turn(store)
        await partial(store, context, "Once")
        await append(store, context, entry(1, 4, " upon"))
        await append(store, context, entry(2, 4, " upon a"))
        await append(store, context, entry(3, 11, " time"))
        assert await answered_so_far(store) == "Once upon a time"

    async def test_the_very_same_entries_again_change_nothing(self, store: DatabaseStore) -> None:
        context = await grown(store)
        before = await log(store)
        await append(store, context, entry(1, 4, " upon"), entry(2, 9, " a time"))
        assert await log(store) == before

    async def test_a_row_that_was_saved_again_as_a_whole_needs_no_log(self, store: DatabaseStore) -> None:
        context = await grown(store)
        assert await partial(store, context, "Twice")
        assert await log(store) == []
        assert await answered_so_far(store) == "Twice"

    async def test_characters_count_as_postgresql_counts_them(self, store: DatabaseStore) -> None:
        context = await in_turn(store)
        await partial(store, context, "𝔊é日\u0301")
        await append(store, context, entry(1, 4, "👩‍👩‍👧"), entry(2, 9, "!"))
        assert await answered_so_far(store) == "𝔊é日\u0301👩‍👩‍👧!"

    async def test_annotations_and_further_parts_have_entries_of_their_own(self, store: DatabaseStore) -> None:
        context = await in_turn(store)
        parts = [AssistantMessageContent(text="One", annotations=[CITATION]), AssistantMessageContent(text="Two")]
        item = assistant_message("t", "a").model_copy(update={"content": parts})
        await store.partials.save_items([PartialItem(context, item)])
        await append(
            store,
            context,
            LogEntry("a", 1, 1, 3, " and more"),
            LogEntry("a", 2, 0, 1, annotation=CITATION.model_copy(update={"index": 7})),
            LogEntry("a", 3, 1, 0, annotation=CITATION),
        )
        loaded = await store.load_item("t", "a", RequestContext(user_id="alice"))
        assert isinstance(loaded, AssistantMessageItem)
        assert [part.text for part in loaded.content] == ["One", "Two and more"]
        assert [[note.index for note in part.annotations] for part in loaded.content] == [[3, 7], [3]]

    async def test_nothing_of_it_is_seen_while_only_the_turn_may_see_it(self, store: DatabaseStore) -> None:
        context = await in_turn(store)
        session = context.session
        assert session is not None
        session.awaits_verdict = True
        await partial(store, context, "Once")
        await append(store, context, entry(1, 4, " upon"))
        assert session.has_drafts
        with pytest.raises(NotFound):
            await store.load_item("t", "a", RequestContext(user_id="alice"))
        assert await store.load_item("t", "a", context) == assistant_message("t", "a", "Once upon")


class TestEnds:
    async def test_a_finished_item_replaces_its_log(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.add_thread_item("t", assistant_message("t", "a", "Once."), context)
        assert await log(store) == [], "INVARIANT: a finished item has no log"
        assert await answered_so_far(store) == "Once."

    async def test_a_checkpoint_that_comes_after_the_finished_item_adds_nothing(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.add_thread_item("t", assistant_message("t", "a", "Once."), context)
        await append(store, context, entry(3, 16, " and for all"))
        await partial(store, context, "Once upon a time and for all")
        assert await answered_so_far(store) == "Once."
        await store.turns.finish(context, Outcome("completed"))
        assert await log(store) == []

    async def test_a_removed_item_has_no_log(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.delete_thread_item("t", "a", context)
        assert await log(store) == []

    async def test_a_deleted_thread_has_no_log(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.delete_thread("t", RequestContext(user_id="alice"))
        assert await log(store) == []
        (reason,) = (await append(store, context, entry(3, 16, "!"))).values()
        assert isinstance(reason, NotFound)
        assert await log(store) == []

    async def test_the_end_of_the_turn_makes_the_message_whole(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.turns.finish(
            context, Outcome("stopped"), unfinished=[assistant_message("t", "a", "Once upon a time!")]
        )
        assert await log(store) == []
        assert await answered_so_far(store) == "Once upon a time!"

    @pytest.mark.parametrize("by", ["the next turn", "maintenance", "maintenance after older code"])
    async def test_whoever_closes_the_turn_of_a_dead_process_makes_the_message_whole(
        self, store: DatabaseStore, by: str
    ) -> None:
        await grown(store)
        others = await grown(store, "bob")
        async with sql_connection(store.database) as connection:
            await connection.execute(
                text("UPDATE chat_turns SET heartbeat_at = now() - interval '1 h' WHERE user_id = 'alice'")
            )
            if by == "maintenance after older code":
                await connection.execute(
                    text("UPDATE chat_turns SET state = 'interrupted', ended_at = now() WHERE user_id = 'alice'")
                )
        if by == "the next turn":
            await store.turns.close_stale("t", RequestContext(user_id="alice"), stale_seconds=60)
        else:
            await maintenance.close_stale_turns(store.database, 60)
            await maintenance.delete_logs_of_ended_turns(store.database)
        (row,) = await stored(
            store, "SELECT content, item FROM chat_messages WHERE user_id = 'alice' AND item_id = 'a' AND is_partial"
        )
        assert row["content"] == row["item"]["content"][0]["text"] == "Once upon a time"
        assert {entry["user_id"] for entry in await log(store)} == {"bob"}
        assert await answered_so_far(store, "bob") == "Once upon a time"
        assert await append(store, others, entry(3, 16, "!")) == {}

    async def test_a_log_that_was_left_behind_is_swept_and_changes_no_finished_item(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.add_thread_item("t", assistant_message("t", "a", "Once."), context)
        await append(store, context, entry(3, 16, " left behind"))
        async with sql_connection(store.database) as connection:
            await connection.execute(text("UPDATE chat_turns SET state = 'completed', ended_at = now()"))
        await maintenance.delete_logs_of_ended_turns(store.database)
        assert await log(store) == []
        assert await answered_so_far(store) == "Once."


class TestFence:
    async def test_a_turn_that_lost_its_thread_writes_nothing_and_learns_why(self, store: DatabaseStore) -> None:
        older = await grown(store)
        newer = RequestContext(user_id="alice", session=WriteSession("threads.add_user_message"))
        await store.add_thread_item("t", user_message("t", "m2"), newer)
        before = await log(store)
        (reason,) = (await append(store, older, entry(3, 16, " too late"))).values()
        assert isinstance(reason, Superseded)
        assert await log(store) == before, "INVARIANT: a checkpoint is fenced"
        assert not await partial(store, older, "too late")
        assert await answered_so_far_of(store, "a") == "Once upon a time"

    async def test_a_turn_that_was_taken_for_dead_learns_just_that(self, store: DatabaseStore) -> None:
        context = await grown(store)
        await store.turns.close_stale("t", context, stale_seconds=0.0)
        (reason,) = (await append(store, context, entry(3, 16, "!"))).values()
        assert isinstance(reason, Interrupted)

    async def test_turns_of_one_thread_in_one_statement_do_not_mix(self, store: DatabaseStore) -> None:
        older = await grown(store)
        newer = RequestContext(user_id="alice", session=WriteSession("threads.add_user_message"))
        await store.add_thread_item("t", user_message("t", "m2"), newer)
        items = [
            PartialItem(older, assistant_message("t", "a", "late")),
            PartialItem(newer, assistant_message("t", "b")),
        ]
        assert await store.partials.save_items(items) == [False, True]
        appended = await store.partials.checkpoint(
            [Checkpoint(older, [entry(3, 16, "!")]), Checkpoint(newer, [LogEntry("b", 1, 0, 6, "...")])],
            with_heartbeat=True,
        )
        assert [type(reason) for reason in appended.lost.values()] == [Superseded]
        page = await store.load_thread_items("t", None, 10, "asc", RequestContext(user_id="alice"))
        assert [item.id for item in page.data] == ["m", "a", "m2", "b"]

    async def test_a_thread_that_is_being_written_to_is_left_for_later(self, store: DatabaseStore) -> None:
        busy, free = await in_turn(store, "alice"), await in_turn(store, "bob")
        async with sql_connection(store.database, "READ COMMITTED") as connection:
            await connection.execute(text("SELECT * FROM chat_sessions WHERE user_id = 'alice' FOR UPDATE"))
            await connection.execute(text("SELECT * FROM chat_turns WHERE user_id = 'alice' FOR UPDATE"))
            async with asyncio.timeout(5):
                items = [PartialItem(context, assistant_message("t", "a", "Once")) for context in (busy, free)]
                assert await store.partials.save_items(items) == [False, True]
                appended = await store.partials.checkpoint([Checkpoint(busy), Checkpoint(free)], with_heartbeat=True)
            assert appended.lost == {}
        assert await partial(store, busy, "Once")

    async def test_a_beat_shows_that_the_turns_are_alive(self, store: DatabaseStore) -> None:
        contexts = [await in_turn(store, user) for user in ("alice", "bob")]
        async with sql_connection(store.database) as connection:
            await connection.execute(text("UPDATE chat_turns SET heartbeat_at = now() - interval '1 h'"))
        age = "SELECT min(now() - heartbeat_at) > interval '1 min' AS is_old FROM chat_turns"
        for beats in (False, True):
            await store.partials.checkpoint([Checkpoint(context) for context in contexts], with_heartbeat=beats)
            assert (await stored(store, age))[0]["is_old"] is not beats


async def answered_so_far_of(store: DatabaseStore, item_id: str) -> str:
    loaded = await store.load_item("t", item_id, RequestContext(user_id="alice"))
    assert isinstance(loaded, AssistantMessageItem)
    return loaded.content[0].text


async def everything_of(store: DatabaseStore, user: str) -> Sequence[Any]:
    tables = ("chat_sessions", "chat_messages", "chat_turns", "chat_partial_log")
    return [
        await stored(store, f"SELECT * FROM {table} WHERE user_id = '{user}' ORDER BY 1, 2, 3, 4") for table in tables
    ]


async def attack(store: DatabaseStore) -> None:
    """Mallory's turn has the ids of Alice's thread and turn, which only a mistake of ours could give it."""
    alices = await grown(store)
    bobs = await in_turn(store, "bob")
    assert alices.session is not None
    mallorys = RequestContext(user_id="mallory", session=alices.session)
    before = await everything_of(store, "alice")
    items = [
        PartialItem(mallorys, assistant_message("t", "a", "stolen")),
        PartialItem(bobs, assistant_message("t", "a", "Bob's")),
    ]
    assert await store.partials.save_items(items) == [False, True]
    checkpoints = [Checkpoint(mallorys, [entry(3, 16, " stolen")]), Checkpoint(bobs, [entry(1, 5, " own")])]
    appended = await store.partials.checkpoint(checkpoints, with_heartbeat=True)
    assert [type(reason) for reason in appended.lost.values()] == [NotFound]
    assert await everything_of(store, "alice") == before
    assert await everything_of(store, "mallory") == [[], [], [], []]
    assert await answered_so_far(store, "bob") == "Bob's own"


class TestOwners:
    async def test_every_row_is_its_owners(self, store: DatabaseStore) -> None:
        await attack(store)

    @pytest.mark.parametrize(
        ("statement", "comparison"),
        [
            (partials.SAVE_PARTIAL_ITEMS, "s.user_id = g.user_id AND s"),
            (partials.CHECKPOINT_TURNS, "s.user_id = t.user_id AND s"),
        ],
        ids=lambda value: value.name if isinstance(value, Statement) else "",
    )
    @pytest.mark.one_postgres
    async def test_a_statement_that_forgets_the_owner_of_a_row_is_noticed(
        self, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, statement: Statement, comparison: str
    ) -> None:
        assert comparison in statement.driver_sql
        forgetful = re.sub(re.escape(comparison), comparison[-1], statement.driver_sql)
        monkeypatch.setattr(statement, "driver_sql", forgetful)
        with pytest.raises(AssertionError):
            await attack(store)


@pytest.mark.parametrize(
    "content", ["null", "7", '"text"', "{}", "[]", "[7]", '[{"text": null}]', '[{"annotations": 7}]']
)
async def test_a_partial_row_that_somebody_has_broken_affects_no_other(store: DatabaseStore, content: str) -> None:
    await grown(store)
    async with sql_connection(store.database) as connection:
        broken = (
            "UPDATE chat_messages SET item = jsonb_set(item, '{content}', CAST(:content AS jsonb)) WHERE is_partial"
        )
        await connection.execute(text(broken), {"content": content})
    page = await store.load_thread_items("t", None, 10, "asc", RequestContext("alice"))
    assert [item.id for item in page.data] == ["m", "a"]
    await maintenance.close_stale_turns(store.database, -1)
    page = await store.load_thread_items("t", None, 10, "asc", RequestContext("alice"))
    assert [item.id for item in page.data] == ["m", "a"]
