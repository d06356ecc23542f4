"""The order of an event's way: saved, sent, and only then the thread around it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from chatkit.agents import AgentContext
from chatkit.types import (
    AssistantMessageItem,
    ProgressUpdateEvent,
    StructuredInputFreeform,
    StructuredInputItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadsAddStructuredInputReq,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.runs import FollowedRuns
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import Chat, Scripted, create, delta, file_store, message, stored
from tests.support.items import NAIVE, thread


class Renaming(Assistant):
    """Changes the thread with every event."""

    def __init__(self, *script: ThreadStreamEvent) -> None:
        self._script = script

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        for number, event in enumerate(self._script):
            context.thread.metadata = {"events": number}
            yield event

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        return None


async def kinds(server: ChatServer, request: Any) -> list[str]:
    context = RequestContext(user_id="alice", session=WriteSession(request.type))
    return [event.type async for event in server.stream(request, context, Draft())]


async def test_a_committed_item_is_sent_even_if_the_thread_cannot_be_saved(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [ThreadItemDoneEvent(item=message(name, "Hi")) for name in ("one", "two")]
    server = ChatServer(store, Renaming(*items), file_store(store))
    saved, save = 0, store.save_thread

    async def fails_for_the_second_change(*given: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise DatabaseUnavailable
        await save(*given)

    monkeypatch.setattr(store, "save_thread", fails_for_the_second_change)
    seen = await kinds(server, create("Hello"))
    assert seen[3:] == ["thread.item.done", "thread.updated", "thread.item.done", "error", "thread.updated"]


async def test_of_several_events_that_one_became_each_is_sent_before_the_next_is_saved(store: DatabaseStore) -> None:
    """A model that gives one id to two messages, and removes it."""
    script: list[ThreadStreamEvent] = [
        *(ThreadItemDoneEvent(item=message("same", text)) for text in ("one", "two")),
        ThreadItemRemovedEvent(item_id="same"),
    ]
    server = ChatServer(store, Scripted(*script), file_store(store))
    context = RequestContext(user_id="alice", session=WriteSession("threads.create"))
    left = [
        len(await stored(store, "SELECT * FROM chat_messages WHERE sender_type = 'assistant'"))
        async for event in server.stream(create("Hello"), context, Draft())
        if event.type == "thread.item.removed"
    ]
    assert left == [1, 0]


async def test_the_users_own_answers_do_not_count_against_the_limit(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), {"user_id": "alice"})
    questions = StructuredInputItem(
        id="q", thread_id="t", created_at=NAIVE, inputs=[StructuredInputFreeform(id="why", question="Why?")]
    )
    await store.add_thread_item("t", questions, {"user_id": "alice"})
    answer = ThreadItemDoneEvent(item=message("m", "Thanks"))
    server = ChatServer(store, Scripted(answer), file_store(store), max_answer_characters=1000)
    given = {"status": "answered", "answers": {"why": {"values": ["x" * 5000]}}}
    request = ThreadsAddStructuredInputReq.model_validate(
        {"type": "threads.add_structured_input", "params": {"thread_id": "t", "item_id": "q", "input": given}}
    )
    assert await kinds(server, request) == ["stream_options", "thread.item.replaced", "thread.item.done"]


async def test_a_change_is_announced_also_where_the_answer_is_cut(store: DatabaseStore) -> None:
    script: list[ThreadStreamEvent] = [ThreadItemAddedEvent(item=message("m")), delta("m", "x" * 3000)]
    server = ChatServer(store, Renaming(*script), file_store(store), max_answer_characters=1000)
    seen = await kinds(server, create("Hello"))
    assert seen[-3:] == ["thread.item.updated", "thread.updated", "error"]


async def test_a_title_may_stream(store: DatabaseStore) -> None:
    class Talkative(Scripted):
        async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
            await asyncio.sleep(0.05)
            await context.stream(ProgressUpdateEvent(text="Thinking of a title"))
            # The answer ends after that.
            is_titled.set()
            return "A fine title"

    is_titled = asyncio.Event()
    server = ChatServer(store, Talkative(is_titled, ThreadItemDoneEvent(item=message("m", "Hi"))), file_store(store))
    assert "progress_update" in await kinds(server, create("Hello"))
    assert [row["title"] for row in await stored(store, "SELECT title FROM chat_sessions")] == ["A fine title"]


def test_a_run_with_a_copy_of_the_request_is_the_requests_own() -> None:
    request = RequestContext(user_id="alice", session=WriteSession("threads.create"))
    runs = FollowedRuns(None, request, counted=True)
    copy = replace(request, locale="fr")
    assert runs.counts({"context": copy})
    assert runs.counts({"context": dict(copy)})
    assert not runs.counts({"context": RequestContext(user_id="alice")})


IDS = ("m1", "m2")


class Improvising(Assistant):
    """Announces, changes, ends, replaces and removes messages in a random order: two with ids that the store gave, and
    two with ids of a model. None is announced twice."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        ours = [context.generate_id("message"), context.generate_id("message"), *IDS]
        announced = set[str]()
        for number in range(12):
            chosen = self._random.choice(ours)
            item = message(chosen, f"text {number}")
            if chosen not in announced:
                announced.add(chosen)
                yield ThreadItemAddedEvent(item=item)
                continue
            events: list[ThreadStreamEvent] = [
                delta(chosen, f" and {number}"),
                ThreadItemDoneEvent(item=item),
                ThreadItemReplacedEvent(item=item),
                ThreadItemRemovedEvent(item_id=chosen),
            ]
            yield self._random.choice(events)

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        return None


def shown(events: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The messages of the assistant as a client has them, in any order."""
    texts: dict[str, str] = {}
    for event in events:
        match event:
            case {"type": "thread.item.added" | "thread.item.done" | "thread.item.replaced", "item": item}:
                if item["type"] == "assistant_message":
                    texts[item["id"]] = "".join(part["text"] for part in item["content"])
            case {"type": "thread.item.updated", "item_id": item_id, "update": {"delta": added}}:
                if item_id in texts:
                    texts[item_id] += added
            case {"type": "thread.item.removed", "item_id": item_id}:
                texts.pop(item_id, None)
    return texts


@pytest.mark.parametrize("first", range(0, 100, 10))
async def test_what_a_client_shows_is_what_is_stored(store: DatabaseStore, first: int) -> None:
    for seed in range(first, first + 10):
        chat = Chat(store, Improvising(seed))
        events = await chat.events(create("Hello"))
        page = await store.load_thread_items(
            events[0]["thread"]["id"], None, 50, "asc", RequestContext(user_id="alice")
        )
        kept = {
            item.id: "".join(part.text for part in item.content)
            for item in page.data
            if isinstance(item, AssistantMessageItem)
        }
        assert kept == shown(events), seed
