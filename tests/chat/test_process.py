"""``ChatServer.process``, as whoever knows the SDK's server calls it: the stream is driven by its reader."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from chatkit.server import StreamingResult
from chatkit.types import LockedStatus, ThreadItemAddedEvent, ThreadItemDoneEvent, ThreadStreamEvent

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ThreadLocked
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, Scripted, create, delta, message, stored
from tests.support.items import thread

ALICE = RequestContext(user_id="alice")


async def stream(store: DatabaseStore, *script: ThreadStreamEvent | Exception | asyncio.Event) -> Any:
    request = create("Hello").model_dump_json()
    result = await Chat(store, Scripted(*script)).server.process(request, ALICE)
    assert isinstance(result, StreamingResult)
    return result.json_events


async def states(store: DatabaseStore) -> list[tuple[str, str | None]]:
    return [(turn["state"], turn["error_code"]) for turn in await stored(store, "SELECT * FROM chat_turns")]


async def test_a_whole_answer_is_a_completed_turn(store: DatabaseStore) -> None:
    frames = [frame async for frame in await stream(store, ThreadItemDoneEvent(item=message("m", "Hi")))]
    kinds = [json.loads(frame.removeprefix(b"data: "))["type"] for frame in frames]
    assert kinds[:2] == ["thread.created", "thread.item.done"]
    assert await states(store) == [("completed", None)]


async def test_an_error_is_a_failed_turn(store: DatabaseStore) -> None:
    frames = [frame async for frame in await stream(store, RuntimeError("secret"))]
    assert b"secret" not in b"".join(frames)
    assert await states(store) == [("failed", "assistant_failed")]


async def test_a_reader_that_leaves_stops_the_turn_and_keeps_its_text(store: DatabaseStore) -> None:
    events = await stream(store, ThreadItemAddedEvent(item=message("m")), delta("m", "Half"), asyncio.Event())
    async with aclosing(events):
        async for frame in events:
            if b"Half" in frame:
                break
    assert await states(store) == [("stopped", None)]
    rows = await stored(store, "SELECT content, is_partial FROM chat_messages ORDER BY position")
    assert [(row["content"], row["is_partial"]) for row in rows] == [("Hello", False), ("Half", True)]


async def test_a_refused_request_leaves_nothing(store: DatabaseStore) -> None:
    request = {"type": "threads.get_by_id", "params": {"thread_id": "absent"}}
    error = None
    try:
        await Chat(store, Scripted()).server.process(json.dumps(request), ALICE)
    except Exception as raised:  # noqa: BLE001 - which one, is asserted
        error = raised
    assert type(error).__name__ == "NotFound"
    assert await states(store) == []


async def test_a_thread_whose_first_answer_fails_has_its_title(store: DatabaseStore) -> None:
    frames = [frame async for frame in await stream(store, RuntimeError("no model"))]
    kinds = [json.loads(frame.removeprefix(b"data: "))["type"] for frame in frames]
    assert sorted(kinds[-2:]) == ["error", "thread.updated"]
    assert [row["title"] for row in await stored(store, "SELECT title FROM chat_sessions")] == ["Hello"]


async def test_feedback_on_a_thread_that_was_locked_after_the_check_is_refused(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), ALICE)
    await store.add_thread_item("t", message("m", "Hi").model_copy(update={"thread_id": "t"}), ALICE)
    locked = thread("t").model_copy(update={"status": LockedStatus()})
    await store.save_thread(locked, {"user_id": "alice"})
    with pytest.raises(ThreadLocked):
        await store.items.save_feedback("t", ["m"], "positive", ALICE)
    assert await stored(store, "SELECT * FROM chat_feedback") == []
