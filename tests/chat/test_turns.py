"""A turn in one process: its ids, and what it keeps when it is stopped or fails."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from chatkit.errors import CustomStreamError
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    HiddenContextItem,
    LockedStatus,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadRetryAfterItemParams,
    ThreadsRetryAfterItemReq,
)

from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.running_turn import TurnLimits, no_readers
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError, DatabaseUnavailable, NotFound, ThreadNotActive
from chatkit_postgres.observability.logs import configure_logging
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import (
    Chat,
    Scripted,
    add_message,
    create,
    delta,
    demo_assistant,
    message,
    remaining_events,
    stored,
    wait_for_text,
)
from tests.support.items import NAIVE


@pytest.fixture
async def demo(store: DatabaseStore) -> AsyncIterator[Chat]:
    chat = Chat(store, demo_assistant())
    yield chat
    await chat.runner.drain(0)


class TestIds:
    async def test_two_messages_with_the_models_one_id_are_two_rows(self, store: DatabaseStore) -> None:
        fake = "__fake_id__"
        chat = Chat(
            store,
            Scripted(
                ThreadItemAddedEvent(item=message(fake)),
                delta(fake, "one"),
                ThreadItemDoneEvent(item=message(fake, "one")),
                ThreadItemAddedEvent(item=message(fake)),
                delta(fake, "two"),
                ThreadItemDoneEvent(item=message(fake, "two")),
                ThreadItemDoneEvent(item=message(fake, "three, never announced")),
            ),
        )
        events = await chat.events(create("Hello"))
        assert fake not in str(events)
        announced = [e["item"]["id"] for e in events if e["type"] == "thread.item.added"]
        updated = [e["item_id"] for e in events if e["type"] == "thread.item.updated"]
        done = [e["item"]["id"] for e in events if e["type"] == "thread.item.done"][1:]
        assert announced == updated == done[:2]
        assert len(set(done)) == 3
        rows = await stored(store, "SELECT content FROM chat_messages ORDER BY position")
        assert [row["content"] for row in rows][1:] == ["one", "two", "three, never announced"]

    async def test_removing_by_the_models_id_removes_every_item_it_named(self, store: DatabaseStore) -> None:
        chat = Chat(
            store,
            Scripted(
                ThreadItemDoneEvent(item=message("same", "one")),
                ThreadItemDoneEvent(item=message("same", "two")),
                ThreadItemRemovedEvent(item_id="same"),
                ThreadItemRemovedEvent(item_id="never seen"),
                delta("never seen", "lost"),
            ),
        )
        events = await chat.events(create("Hello"))
        removed = [e["item_id"] for e in events if e["type"] == "thread.item.removed"]
        assert removed == [e["item"]["id"] for e in events if e["type"] == "thread.item.done"][1:]
        assert await stored(store, "SELECT * FROM chat_messages WHERE sender_type = 'assistant'") == []


class TestEnds:
    async def test_a_stopped_turn_keeps_its_partial_answer_and_ends_the_assistant(self, store: DatabaseStore) -> None:
        never = asyncio.Event()
        assistant = Scripted(ThreadItemAddedEvent(item=message("m")), delta("m", "Once upon"), never)
        turn = await Chat(store, assistant).start(create("Hello"))
        await wait_for_text(turn, b"Once upon")
        turn.stop(no_readers())
        turn.stop(no_readers())
        await turn.task
        assert assistant.ended
        (row,) = await stored(store, "SELECT * FROM chat_messages WHERE sender_type = 'assistant'")
        assert (row["content"], row["is_partial"]) == ("Once upon", True)
        assert [t["state"] for t in await stored(store, "SELECT state FROM chat_turns")] == ["stopped"]
        # And the thread is free for the next message.
        assert [s["current_turn_id"] for s in await stored(store, "SELECT * FROM chat_sessions")] == [None]

    async def test_an_assistant_that_fails_is_one_error_event_and_a_failed_turn(
        self, store: DatabaseStore, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure_logging(level="DEBUG", log_format="console")
        events = await Chat(store, Scripted(RuntimeError("what the user said"))).events(create("Hello"))
        logged = capfd.readouterr().err
        assert "RuntimeError" in logged
        assert "what the user said" not in logged
        errors = [e for e in events if e["type"] == "error"]
        assert errors == [{"type": "error", "code": "stream.error", "allow_retry": True}]
        (turn,) = await stored(store, "SELECT * FROM chat_turns")
        assert (turn["state"], turn["error_code"]) == ("failed", "assistant_failed")

    async def test_an_assistants_own_sentence_reaches_the_user(self, store: DatabaseStore) -> None:
        events = await Chat(store, Scripted(CustomStreamError("Too much.", allow_retry=False))).events(create("Hello"))
        errors = [e for e in events if e["type"] == "error"]
        assert errors == [{"type": "error", "code": "custom", "message": "Too much.", "allow_retry": False}]

    async def test_what_fails_before_the_first_event_is_raised_and_leaves_nothing(self, store: DatabaseStore) -> None:
        with pytest.raises(NotFound):
            await Chat(store, Scripted()).events(add_message("thr_nowhere", "Hello"))
        for table in ("chat_sessions", "chat_messages", "chat_turns", "chat_users"):
            assert await stored(store, f"SELECT * FROM {table}") == []

    async def test_the_older_of_two_turns_is_told_that_it_was_superseded(self, store: DatabaseStore) -> None:
        gate = asyncio.Event()
        slow = Chat(store, Scripted(gate, ThreadItemDoneEvent(item=message("m", "too late"))))
        quick = Chat(store, Scripted(ThreadItemDoneEvent(item=message("m", "in time"))))
        thread_id = (await quick.events(create("Hello")))[0]["thread"]["id"]
        older = await slow.start(add_message(thread_id, "first"))
        await quick.events(add_message(thread_id, "second"))
        gate.set()
        errors = [e for e in await remaining_events(older) if e["type"] == "error"]
        assert [(e["code"], e["allow_retry"]) for e in errors] == [("custom", False)]
        turns = await stored(store, "SELECT state, error_code FROM chat_turns ORDER BY started_at")
        ends = [(turn["state"], turn["error_code"]) for turn in turns]
        assert ends[1:] == [("superseded", "superseded"), ("completed", None)]
        contents = [
            row["content"] for row in await stored(store, "SELECT content FROM chat_messages ORDER BY position")
        ]
        assert contents == ["Hello", "in time", "first", "second", "in time"]

    async def test_closing_the_runner_saves_what_was_running(self, store: DatabaseStore) -> None:
        chat = Chat(store, Scripted(ThreadItemAddedEvent(item=message("m")), delta("m", "half"), asyncio.Event()))
        turn = await chat.start(create("Hello"))
        await wait_for_text(turn, b"half")
        await chat.runner.drain(0)
        (row,) = await stored(store, "SELECT content FROM chat_messages WHERE sender_type = 'assistant'")
        assert row["content"] == "half"
        assert [t["state"] for t in await stored(store, "SELECT state FROM chat_turns")] == ["interrupted"]


class TestTelling:
    async def test_what_is_told_as_done_is_committed_already(self, store: DatabaseStore) -> None:
        """Seen from another connection, at the moment the event is in the reader's hands."""
        chat = Chat(store, Scripted(ThreadItemDoneEvent(item=message("m", "told")), asyncio.Event()))
        turn = await chat.start(create("Hello"))
        await wait_for_text(turn, b"told")
        rows = await stored(store, "SELECT content, is_partial FROM chat_messages ORDER BY position")
        committed = [(row["content"], row["is_partial"]) for row in rows]
        assert committed == [("Hello", False), ("told", False)], "INVARIANT: what was acknowledged is stored"
        await chat.runner.drain(0)

    async def test_an_unfinished_answer_is_saved_while_the_model_is_silent(self, store: DatabaseStore) -> None:
        chat = Chat(store, Scripted(ThreadItemAddedEvent(item=message("m")), delta("m", "so far"), asyncio.Event()))
        turn = await chat.start(create("Hello"))
        partial = "SELECT content FROM chat_messages WHERE is_partial"
        async with asyncio.timeout(20):
            while not await stored(store, partial):  # noqa: ASYNC110 - the event is in another task
                await asyncio.sleep(0.05)
        assert [row["content"] for row in await stored(store, partial)] == ["so far"]
        turn.stop(no_readers())
        await turn.task
        assert [row["content"] for row in await stored(store, partial)] == ["so far"]

    async def test_hidden_context_leaves_by_no_event(self, store: DatabaseStore) -> None:
        secret = HiddenContextItem(id="h", thread_id="?", created_at=NAIVE, content="the secret")
        chat = Chat(
            store,
            Scripted(
                ThreadItemAddedEvent(item=secret),
                ThreadItemDoneEvent(item=secret),
                ThreadItemReplacedEvent(item=secret),
                ThreadItemDoneEvent(item=message("m", "public")),
            ),
        )
        assert "the secret" not in str(await chat.events(create("Hello")))
        assert "the secret" in str(await stored(store, "SELECT item::text FROM chat_messages"))

    async def test_half_a_character_from_the_model_loses_nothing_else(self, store: DatabaseStore) -> None:
        chat = Chat(
            store,
            Scripted(
                ThreadItemAddedEvent(item=message("m")),
                delta("m", "fine \ud83d"),
                delta("m", "\ude00 and \x00 on"),
                ThreadItemDoneEvent(item=message("m", "fine \ud83d\ude00 and \ud800 on")),
            ),
        )
        events = await chat.events(create("Hello"))
        assert [e for e in events if e["type"] == "error"] == []
        (row,) = await stored(store, "SELECT content FROM chat_messages WHERE sender_type = 'assistant'")
        assert row["content"] == "fine \U0001f600 and \ufffd on"

    async def test_what_is_read_of_strange_text_is_what_is_stored(self, store: DatabaseStore) -> None:
        strange = "a\x00b\u2028c\ufffe"
        script = (
            ThreadItemAddedEvent(item=message("m")),
            delta("m", strange),
            ThreadItemDoneEvent(item=message("m", strange)),
        )
        events = await Chat(store, Scripted(*script)).events(create("Hello"))
        read = [e["update"]["delta"] for e in events if e["type"] == "thread.item.updated"]
        (row,) = await stored(store, "SELECT content FROM chat_messages WHERE sender_type = 'assistant'")
        assert read == [row["content"]] == ["a\ufffdb\u2028c\ufffe"]

    @pytest.mark.parametrize("is_streamed", [True, False])
    async def test_fifty_megabytes_at_once_are_an_answer_that_is_too_long(
        self, store: DatabaseStore, is_streamed: bool
    ) -> None:
        huge = "x" * 50_000_000
        whole = [ThreadItemDoneEvent(item=message("m", huge))]
        script = [ThreadItemAddedEvent(item=message("m")), delta("m", huge)] if is_streamed else whole
        events = await Chat(store, Scripted(*script)).events(create("Hello"))
        (error,) = [e for e in events if e["type"] == "error"]
        assert (error["message"], error["allow_retry"]) == ("The answer became too long and was ended here.", False)
        assert sum(len(str(e)) for e in events) < 1_100_000
        kept = await stored(store, "SELECT length(content) AS n FROM chat_messages WHERE sender_type = 'assistant'")
        assert kept == ([{"n": 1_000_000}] if is_streamed else [])
        assert await stored(store, "SELECT state, error_code FROM chat_turns") == [
            {"state": "failed", "error_code": "answer_too_long"}
        ]

    async def test_items_without_end_are_an_answer_that_is_too_long(self, store: DatabaseStore) -> None:
        script = [ThreadItemDoneEvent(item=message(f"m{n}", "x" * 100_000)) for n in range(100)]
        events = await Chat(store, Scripted(*script)).events(create("Hello"))
        done = [e for e in events if e["type"] == "thread.item.done"]
        assert 30 < len(done) < 45
        assert events[-1]["type"] == "error"

    async def test_an_update_of_an_impossible_part_is_dropped(self, store: DatabaseStore) -> None:
        far = ThreadItemUpdatedEvent(
            item_id="m", update=AssistantMessageContentPartTextDelta(content_index=10**9, delta="x")
        )
        script = (ThreadItemAddedEvent(item=message("m")), far, ThreadItemDoneEvent(item=message("m", "fine")))
        events = await Chat(store, Scripted(*script)).events(create("Hello"))
        assert [e["type"] for e in events].count("thread.item.updated") == 0

    async def test_a_locked_thread_takes_no_message_no_retry_and_no_output(self, store: DatabaseStore) -> None:
        chat = Chat(store, Scripted(ThreadItemDoneEvent(item=message("m", "answer"))))
        created = await chat.events(create("Hello"))
        thread_id, question = created[0]["thread"]["id"], created[1]["item"]["id"]
        context = RequestContext(user_id="alice")
        locked = await store.load_thread(thread_id, context)
        locked.status = LockedStatus()
        await store.save_thread(locked, context)
        retry = ThreadsRetryAfterItemReq(params=ThreadRetryAfterItemParams(thread_id=thread_id, item_id=question))
        for request in (add_message(thread_id, "more"), retry):
            with pytest.raises(ThreadNotActive):
                await chat.start(request)
        assert len(await stored(store, "SELECT * FROM chat_messages")) == 2
        assert len(await stored(store, "SELECT * FROM chat_turns")) == 1

    async def test_a_turn_that_takes_too_long_is_ended_with_what_it_has(self, store: DatabaseStore) -> None:
        assistant = Scripted(ThreadItemAddedEvent(item=message("m")), delta("m", "so far"), asyncio.Event())
        chat = Chat(store, assistant, TurnLimits(turn_seconds=0.6))
        events = await chat.events(create("Hello"))
        assert [e["allow_retry"] for e in events if e["type"] == "error"] == [True]
        (turn,) = await stored(store, "SELECT state, error_code FROM chat_turns")
        assert (turn["state"], turn["error_code"]) == ("failed", "turn_timed_out")

    async def test_with_finish_a_turn_goes_on_without_readers(self, store: DatabaseStore) -> None:
        gate = asyncio.Event()
        chat = Chat(store, Scripted(gate, ThreadItemDoneEvent(item=message("m", "done"))), on_disconnect="finish")
        turn = await chat.start(create("Hello"))
        chat.runner.leave(turn, chat.runner.join(turn))
        gate.set()
        await turn.task
        assert [t["state"] for t in await stored(store, "SELECT state FROM chat_turns")] == ["completed"]

    async def test_no_task_is_left_over_after_turns_that_ended_and_turns_that_were_stopped(self, demo: Chat) -> None:
        before = asyncio.all_tasks()
        for _ in range(3):
            await demo.events(create("What time is it?"))
            turn = await demo.start(create("Hello"))
            turn.stop(no_readers())
            await turn.task
        async with asyncio.timeout(20):
            while asyncio.all_tasks() - before:  # noqa: ASYNC110 - the tasks are the SDK's
                await asyncio.sleep(0.01)

    async def test_a_turn_that_is_stopped_before_its_first_step_leaves_nothing(self, demo: Chat) -> None:
        context = RequestContext(user_id="alice", session=WriteSession("threads.create"))
        draft = Draft()
        events = demo.server.stream(create("Hello"), context, draft)
        waiting = asyncio.create_task(demo.runner.start(events, context, draft))
        # As often as it takes to make the turn's task, which then has not begun.
        while not demo.runner.running_count:  # noqa: ASYNC110 - not one step later
            await asyncio.sleep(0)
        demo.runner.stop_users({"alice"})
        with pytest.raises(ChatError):
            await waiting
        assert demo.runner.running_count == 0
        assert not demo.runner._checkpoints._turns

    async def test_a_turn_that_finds_no_database_is_counted_as_refused(
        self, demo: Chat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: object, **__: object) -> None:
            raise DatabaseUnavailable

        monkeypatch.setattr(demo.store.database, "run", away)
        with pytest.raises(DatabaseUnavailable):
            await demo.start(create("Hello"))
        counted = 'chatkit_turns_refused_total{code="database_unavailable"} 1.0'
        assert counted in demo.runner._metrics.exposition().decode()
