"""More turns than a process can begin, or run, at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from chatkit.types import ThreadMetadata, UserMessageItem

from chatkit_postgres.chat.turns import beginnings
from chatkit_postgres.chat.turns.admission import AdmissionRules
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.running_turn import RunningTurn, TurnLimits
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotFound, ServerFull
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.caller import Caller
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.threads import ThreadRepository
from tests.support.chat import Chat, Scripted, add_message, create, remaining_events, stored


class SlowThreads(ThreadRepository):
    """Begins no thread before it is let."""

    lets: asyncio.Event

    async def begin(self, thread: ThreadMetadata, message: UserMessageItem, caller: Caller) -> None:
        await self.lets.wait()
        await super().begin(thread, message, caller)


class SlowStore(DatabaseStore):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.threads = SlowThreads(database)
        self.lets = self.threads.lets = asyncio.Event()


@pytest.fixture
async def slow(store: DatabaseStore) -> AsyncIterator[SlowStore]:
    slow = SlowStore(store.database)
    yield slow
    slow.lets.set()


async def started(chat: Chat, number: int, wait_seconds: float | None = None) -> RunningTurn:
    request, draft = create("Hello"), Draft()
    context = RequestContext(f"user-{number}", session=WriteSession(request.type))
    events = chat.server.stream(request, context, draft)
    return await chat.runner.start(events, context, draft, wait_seconds=wait_seconds)


async def queued(chat: Chat) -> tuple[RunningTurn, "asyncio.Task[RunningTurn]"]:
    """A turn that waits to begin, with its stream; and the one that it waits for."""
    first = asyncio.create_task(started(chat, 0))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        return await started(chat, 1, wait_seconds=0.05), first


async def test_turns_beyond_the_bound_wait_to_begin_and_are_all_answered(slow: SlowStore) -> None:
    chat = Chat(slow, Scripted(), TurnLimits(beginning_turns=2))
    turns = [asyncio.create_task(started(chat, number)) for number in range(6)]
    await asyncio.sleep(0.1)
    assert chat.runner._beginnings.slots.locked()
    slow.lets.set()
    for turn in await asyncio.gather(*turns):
        assert "error" not in [event["type"] for event in await remaining_events(turn)]
    assert len(await stored(slow, "SELECT * FROM chat_turns WHERE state = 'completed'")) == 6
    assert not chat.runner._beginnings.slots.locked()


async def test_an_answer_that_takes_long_keeps_nobody_from_beginning(store: DatabaseStore) -> None:
    silence = asyncio.Event()
    chat = Chat(store, Scripted(silence), TurnLimits(beginning_turns=1))
    async with asyncio.timeout(10):
        turns = [await started(chat, number) for number in range(3)]
    silence.set()
    for turn in turns:
        await turn.task


async def test_a_beginning_that_hangs_keeps_nobody_from_beginning(
    slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginnings, "HOLD_SECONDS", 0.1)
    chat = Chat(slow, Scripted(), TurnLimits(beginning_turns=1))
    hanging = [asyncio.create_task(started(chat, number)) for number in range(3)]
    await asyncio.sleep(0.5)
    assert not chat.runner._beginnings.slots.locked()
    slow.lets.set()
    for turn in await asyncio.gather(*hanging):
        await turn.task
    # And each place was given back once.
    assert chat.runner._beginnings.slots._value == 1


async def test_a_turn_that_waits_has_its_stream_in_time(slow: SlowStore) -> None:
    chat = Chat(slow, Scripted(), TurnLimits(beginning_turns=1))
    turn, first = await queued(chat)
    reader = turn.buffer.read_from_start()
    # A heartbeat is sent for it.
    assert (turn.buffer.ended, await reader.read(0.05)) == (False, None)
    slow.lets.set()
    for each in (await first, turn):
        events = await remaining_events(each)
        assert (events[0]["type"], "error" in str(events)) == ("thread.created", False)


async def test_a_turn_whose_turn_it_is_has_no_stream_before_its_first_event(slow: SlowStore) -> None:
    """So that without a database the error is a response of its own."""
    chat = Chat(slow, Scripted(), TurnLimits(beginning_turns=1))
    beginning = asyncio.create_task(started(chat, 0, wait_seconds=0.05))
    await asyncio.sleep(0.3)
    assert not beginning.done()
    slow.lets.set()
    await (await beginning).task


async def test_a_refusal_after_the_stream_has_begun_is_an_event_of_it(slow: SlowStore) -> None:
    async def load_thread(*_: object) -> None:
        raise NotFound

    slow.load_thread = load_thread  # type: ignore[method-assign, assignment]
    chat, request, draft = (
        Chat(slow, Scripted(), TurnLimits(beginning_turns=1)),
        add_message("absent", "Hello"),
        Draft(),
    )
    first = asyncio.create_task(started(chat, 0))
    await asyncio.sleep(0.01)
    context = RequestContext("alice", session=WriteSession(request.type))
    turn = await chat.runner.start(chat.server.stream(request, context, draft), context, draft, wait_seconds=0.05)
    slow.lets.set()
    (error,) = await remaining_events(turn)
    assert (error["type"], error["message"]) == ("error", NotFound.sentence)
    await (await first).task
    assert len(await stored(slow, "SELECT * FROM chat_turns")) == 1


async def test_what_cannot_be_borne_is_refused_before_anything_is_stored(store: DatabaseStore) -> None:
    silence = asyncio.Event()
    chat = Chat(store, Scripted(silence), TurnLimits(max_turns=2))
    turns = [await started(chat, number) for number in range(2)]
    assert chat.runner.is_full
    with pytest.raises(ServerFull) as refused:
        await started(chat, 2)
    assert refused.value.retry_after_seconds
    assert len(await stored(store, "SELECT * FROM chat_sessions")) == 2
    assert await stored(store, "SELECT * FROM chat_users WHERE user_id = 'user-2'") == []
    silence.set()
    for turn in turns:
        await turn.task
    await asyncio.sleep(0)
    assert not chat.runner.is_full
    await remaining_events(await started(chat, 2))


async def test_a_reader_that_leaves_a_turn_that_waits_stops_it_once_it_is_open(slow: SlowStore) -> None:
    """Not in the middle of the statement that may have stored the message."""
    silence = asyncio.Event()
    chat = Chat(slow, Scripted(silence), TurnLimits(beginning_turns=1))
    turn, first = await queued(chat)
    reader = chat.runner.join(turn)
    chat.runner.leave(turn, reader)
    await asyncio.sleep(0.1)
    assert (turn.is_stopping, turn.has_begun) == (False, False)
    slow.lets.set()
    await turn.task
    (row,) = await stored(slow, "SELECT state FROM chat_turns WHERE user_id = 'user-1'")
    assert row["state"] == "stopped"
    silence.set()
    await (await first).task


async def test_a_drain_lets_a_turn_finish_its_opening_even_if_its_stream_has_begun(slow: SlowStore) -> None:
    chat = Chat(slow, Scripted(asyncio.Event()), TurnLimits(beginning_turns=1))
    turn, _ = await queued(chat)
    draining = asyncio.create_task(chat.runner.drain(0))
    await asyncio.sleep(0.1)
    assert not turn.is_stopping
    slow.lets.set()
    await draining
    states = await stored(slow, "SELECT DISTINCT state FROM chat_turns")
    assert [row["state"] for row in states] == ["interrupted"]


async def test_a_turn_that_writes_its_end_keeps_nobody_from_the_next(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(store, Scripted(), admission=AdmissionRules(turns_per_user=1))
    finish, is_finishing = store.turns.finish, asyncio.Event()

    async def slow(*given: Any, **named: Any) -> Any:
        is_finishing.set()
        await asyncio.sleep(0.3)
        return await finish(*given, **named)

    monkeypatch.setattr(store.turns, "finish", slow)
    first = await chat.start(create("Hello"))
    await is_finishing.wait()
    second = await chat.start(create("Again"))
    await asyncio.wait([first.task, second.task])
    assert [row["state"] for row in await stored(store, "SELECT state FROM chat_turns")] == ["completed"] * 2
