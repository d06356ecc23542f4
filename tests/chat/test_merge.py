"""What an assistant yields and what it streams beside that is told in one order, and nobody waits for ever."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import pytest
from agents import Agent, Model, RunContextWrapper, function_tool
from agents.items import TResponseStreamEvent
from chatkit.agents import AgentContext
from chatkit.types import (
    ProgressUpdateEvent,
    StreamOptions,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant import AgentAssistant, Assistant, Choices
from chatkit_postgres.assistant.default import build
from chatkit_postgres.assistant.demo.model import DemoModel
from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.chat import merge
from chatkit_postgres.chat.merge import MAX_QUEUED_DELTAS, EventQueue, LiveContext, StreamClosed
from chatkit_postgres.chat.turns.running_turn import TurnLimits
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, add_message, create, delta, demo_assistant, message, stored
from tests.support.items import thread, user_message

Context = AgentContext[RequestContext]
Events = AsyncGenerator[ThreadStreamEvent, None]


def word(number: int) -> ThreadStreamEvent:
    return delta("m", f"{number} ")


async def silence() -> Events:
    await asyncio.Event().wait()
    yield word(0)


class TestEventQueue:
    async def test_words_do_not_wait_and_everything_else_does(self) -> None:
        queue, order = EventQueue(), list[str]()

        async def events() -> Events:
            for number in range(3):
                order.append(f"says {number}")
                yield word(number)
            yield ProgressUpdateEvent(text="between")
            order.append("goes on")
            yield word(3)

        async for event in queue.merge(events()):
            order.append(f"told {event.type}")
            await asyncio.sleep(0)
        assert order[:3] == ["says 0", "says 1", "says 2"]
        assert order.index("told progress_update") < order.index("goes on")
        assert sum(entry.startswith("told") for entry in order) == 5

    async def test_an_assistant_is_ahead_of_a_slow_reader_by_so_many_words_and_no_more(self) -> None:
        queue, said = EventQueue(), 0

        async def events() -> Events:
            nonlocal said
            for number in range(1000):
                said += 1
                yield word(number)

        told = []
        async for event in queue.merge(events()):
            await asyncio.sleep(0)
            told.append(event)
            assert said - len(told) <= MAX_QUEUED_DELTAS + 1
        assert told == [word(number) for number in range(1000)]

    async def test_whoever_waits_is_released_when_the_reader_leaves(self) -> None:
        queue = EventQueue()
        async with aclosing(queue.merge(silence())) as merged:
            waiting = [asyncio.create_task(queue.send(word(number))) for number in range(3)]
            saying = [asyncio.create_task(queue.offer(word(number))) for number in range(2 * MAX_QUEUED_DELTAS)]
            # The first is in the reader's hands when it leaves.
            assert await anext(merged) == word(0)
        ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert [type(result) for result in ended] == [StreamClosed] * 3
        # A word that nobody hears is no error.
        assert await asyncio.wait_for(asyncio.gather(*saying), 5) == [None] * 2 * MAX_QUEUED_DELTAS
        await queue.offer(word(0))
        with pytest.raises(StreamClosed):
            await queue.send(word(0))

    async def test_what_the_assistant_raises_comes_after_what_it_said(self) -> None:
        async def events() -> Events:
            yield word(0)
            yield word(1)
            raise ValueError("broken")

        merged = EventQueue().merge(events())
        assert [await anext(merged), await anext(merged)] == [word(0), word(1)]
        with pytest.raises(ValueError, match="broken"):
            await anext(merged)


def loud(event: ThreadStreamEvent) -> ThreadStreamEvent:
    if isinstance(event, ThreadItemUpdatedEvent) and hasattr(event.update, "delta"):
        return delta(event.item_id, event.update.delta.upper())
    return event


class Loud(AgentAssistant):
    async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
        async for event in super().respond(history, context):
            yield loud(event)


class Around(Assistant):
    """Has another assistant answer."""

    def __init__(self, inner: AgentAssistant) -> None:
        self._inner = inner

    async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
        async for event in self._inner.respond(history, context):
            yield loud(event)


def words(events: list[dict[str, Any]]) -> str:
    return "".join(event.get("update", {}).get("delta", "") for event in events)


def own_way() -> Loud:
    assistant = Loud(build())
    assistant.prepare(DemoModels(seconds_per_word=0), Choices())
    return assistant


@pytest.mark.parametrize("kind", ["itself", "a subclass", "another assistant", "a method of its own"])
async def test_who_changes_what_an_agent_says_sees_all_of_it(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    agent = (Loud if kind == "a subclass" else AgentAssistant)(build())
    agent.prepare(DemoModels(seconds_per_word=0), Choices())
    if kind == "a method of its own":
        plain = AgentAssistant(build())
        plain.prepare(DemoModels(seconds_per_word=0), Choices())
        monkeypatch.setattr(agent, "respond", Around(plain).respond)
    assistant: Assistant = Around(agent) if kind == "another assistant" else agent
    events = await Chat(store, assistant).events(create("Hello"))
    done = events[-1]["item"]["content"][0]["text"]
    assert words(events) == (done if kind == "itself" else done.upper())
    assert "hello" in done.lower()


class Talkative(DemoModel):
    """Calls the tool, and then says a hundred words."""

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        instructions, conversation, settings, tools, *_ = given
        if conversation[-1].get("type") == "function_call_output":
            conversation = [{"role": "user", "content": " ".join(["word"] * 100)}]
        async for event in super().stream_response(instructions, conversation, settings, tools):
            yield event


class TalkativeModels(DemoModels):
    def get_model(self, model_name: str | None) -> Model:
        return Talkative(0)


@function_tool(name_override="current_time")
async def streams(context: RunContextWrapper[Any]) -> str:
    for number in range(40):
        await context.context.stream(ProgressUpdateEvent(text=str(number)))
    return "now"


async def test_words_do_not_overtake_what_a_tool_has_streamed(store: DatabaseStore) -> None:
    assistant = AgentAssistant(Agent(name="A", tools=[streams]))
    assistant.prepare(TalkativeModels(), Choices())
    live = LiveContext.of(thread("t"), store, RequestContext(user_id="alice"))
    history = [user_message("t", "m", "What time is it?")]
    said: list[ThreadStreamEvent] = []
    async with aclosing(live.queue.merge(assistant.stream(history, live, live.queue.offer))) as merged:
        async for event in merged:
            said.append(event)  # noqa: PERF401 - closed when it fails
    kinds = [event.type for event in said]
    # One is the name of the tool.
    assert kinds.count("progress_update") == 41
    before = kinds[: len(kinds) - kinds[::-1].index("progress_update")]
    assert kinds.count("thread.item.updated") > 110
    assert before.count("thread.item.updated") < 80


async def test_a_word_costs_no_task(store: DatabaseStore) -> None:
    """The SDK makes one for each event of a run that it sees."""
    created: list[int] = []
    loop = asyncio.get_running_loop()

    def counting(_: object, *given: Any, **more: Any) -> asyncio.Task[Any]:
        created[-1] += 1
        return asyncio.Task(*given, loop=loop, **more)

    loop.set_task_factory(counting)
    try:
        for assistant in (demo_assistant(), own_way()):
            created.append(0)
            events = await Chat(store, assistant).events(create("Hello"))
            said = len(events[-1]["item"]["content"][0]["text"].split())
    finally:
        loop.set_task_factory(None)
    assert said > 70
    assert created[0] < said
    assert created[1] - created[0] > said - 5


class Yields(Assistant):
    def __init__(self, *yielded: Any) -> None:
        self.yielded = yielded

    async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
        for each in self.yielded:
            yield each


@pytest.mark.parametrize(
    "yielded", [None, message("a", "Hi"), {"type": "notice"}, "Hi"], ids=lambda y: type(y).__name__
)
async def test_what_is_no_event_ends_the_answer_at_once_and_is_named(
    store: DatabaseStore, caplog: pytest.LogCaptureFixture, yielded: Any
) -> None:
    events = await Chat(store, Yields(yielded, ThreadItemDoneEvent(item=message("b", "Later")))).events(create("Hello"))
    assert [event["type"] for event in events if event["type"] not in {"thread.updated", "stream_options"}] == [
        "thread.created",
        "thread.item.done",
        "error",
    ]
    assert f"yielded='{type(yielded).__name__}'" in caplog.text
    assert "yield events" in caplog.text


async def test_an_exit_ends_one_answer_and_not_the_process(store: DatabaseStore) -> None:
    class Exits(Assistant):
        async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
            yield word(0)
            sys.exit(3)

        async def title(self, message: UserMessageItem, context: Context) -> str | None:
            sys.exit(3)

    class ExitsBefore(Exits):
        def stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
            sys.exit(3)

    for assistant in (Exits(), ExitsBefore()):
        events = await Chat(store, assistant).events(create("Hello"))
        assert events[-1]["type"] == "error"
    assert [row["state"] for row in await stored(store, "SELECT state FROM chat_turns")] == ["failed"] * 2


async def test_an_answer_that_ignores_its_end_is_left_behind(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(merge, "END_SECONDS", 0.2)
    may_end = asyncio.Event()

    class Stubborn(Assistant):
        async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
            yield ThreadItemDoneEvent(item=message("a", "Hi"))
            while not may_end.is_set():
                with suppress(asyncio.CancelledError):
                    await may_end.wait()

    chat = Chat(store, Stubborn(), limits=TurnLimits(turn_seconds=0.5))
    async with asyncio.timeout(10):
        events = await chat.events(create("Hello"))
    assert [event["type"] for event in events][-2:] == ["thread.item.done", "error"]
    assert [row["error_code"] for row in await stored(store, "SELECT error_code FROM chat_turns")] == ["turn_timed_out"]
    assert "assistant_ignores_cancellation" in caplog.text
    may_end.set()


async def test_an_item_of_an_assistant_never_takes_the_place_of_the_users(store: DatabaseStore) -> None:
    class Echoes(Assistant):
        async def respond(self, history: Sequence[ThreadItem], context: Context) -> Events:
            for event in (ThreadItemAddedEvent, ThreadItemDoneEvent):
                yield event(item=message(history[-1].id, "Mine"))

    chat = Chat(store, Echoes())
    thread_id = (await chat.events(create("My question")))[0]["thread"]["id"]
    await chat.events(add_message(thread_id, "Another"))
    rows = await stored(store, "SELECT sender_type, content FROM chat_messages ORDER BY position")
    said = [(row["sender_type"], row["content"]) for row in rows]
    assert said == [("user", "My question"), ("assistant", "Mine"), ("user", "Another"), ("assistant", "Mine")]
