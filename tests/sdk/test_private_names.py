"""The private names of the SDK that we call or override, each held to what we rely on.

If one of these fails after an upgrade of openai-chatkit, the upper bound in pyproject.toml has done its work.
"""

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from chatkit.agents import AgentContext, _AsyncQueueIterator, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    StructuredInputAnswer,
    StructuredInputAnswerSubmission,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputSubmission,
    ThreadItemDoneEvent,
    ThreadListParams,
    ThreadMetadata,
    ThreadsListReq,
    ThreadStreamEvent,
)

from app.context import RequestContext
from app.store import DatabaseStore
from tests.support.chat import Chat, Scripted
from tests.support.items import NAIVE, assistant_message, thread

ALICE = RequestContext(user_id="alice")


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)


def test_streaming_operations_go_through_one_generator_that_we_override() -> None:
    assert parameters(ChatKitServer._process_streaming_impl) == ["self", "request", "context"]
    assert inspect.isasyncgenfunction(ChatKitServer._process_streaming_impl)
    assert "self._process_streaming_impl(request, context)" in inspect.getsource(ChatKitServer._process_streaming)


async def test_process_events_saves_done_items_through_the_store_and_turns_errors_into_events(
    store: DatabaseStore,
) -> None:
    await store.save_thread(thread("t"), ALICE)
    metadata = await store.load_thread("t", ALICE)

    async def events() -> AsyncIterator[ThreadStreamEvent]:
        yield ThreadItemDoneEvent(item=assistant_message("t", "m"))
        raise RuntimeError

    seen = [event async for event in Chat(store, Scripted()).server._process_events(metadata, ALICE, events)]
    assert [event.type for event in seen] == ["stream_options", "thread.item.done", "error"]
    assert await store.load_item("t", "m", ALICE) == assistant_message("t", "m")


async def test_non_streaming_operations_are_answered_with_json_bytes(store: DatabaseStore) -> None:
    server = Chat(store, Scripted()).server
    answer = await server._process_non_streaming(ThreadsListReq(params=ThreadListParams()), ALICE)
    assert json.loads(answer) == {"data": [], "has_more": False}


def test_serialising_leaves_out_nulls_and_the_metadata_of_attachments(store: DatabaseStore) -> None:
    server = Chat(store, Scripted()).server
    serialised = server._serialize(ThreadMetadata(id="t", created_at=NAIVE))
    assert json.loads(serialised)["id"] == "t"
    assert b"title" not in serialised


async def test_answers_go_into_a_pending_item_and_unanswered_questions_are_skipped(store: DatabaseStore) -> None:
    item = StructuredInputItem(
        id="q",
        thread_id="t",
        created_at=NAIVE,
        inputs=[StructuredInputFreeform(id=name, question="?") for name in ("one", "two")],
    )
    submission = StructuredInputSubmission(answers={"one": StructuredInputAnswerSubmission(values=["yes"])})
    answered = await Chat(store, Scripted()).server._apply_structured_input_submission(item, submission)
    assert answered.status == "answered"
    assert [question.answer for question in answered.inputs] == [
        StructuredInputAnswer(values=["yes"]),
        StructuredInputAnswer(skipped=True),
    ]
    assert item.status == "pending"


async def test_completing_an_agent_context_ends_the_wait_for_its_queue(store: DatabaseStore) -> None:
    context: AgentContext[RequestContext] = AgentContext(
        thread=ThreadMetadata(id="t", created_at=NAIVE), store=store, request_context=ALICE
    )
    waiting = asyncio.create_task(_AsyncQueueIterator(context._events).__anext__())  # type: ignore[no-untyped-call]
    await asyncio.sleep(0)
    context._complete()  # type: ignore[no-untyped-call]
    await asyncio.wait({waiting}, timeout=5)
    assert isinstance(waiting.exception(), StopAsyncIteration)


def test_an_agents_run_is_asked_for_its_events_and_nothing_else() -> None:
    """So what stands before it, in AgentAssistant, needs no more."""
    used = re.findall(r"\bresult\.\w+", inspect.getsource(stream_agent_response))
    assert used == ["result.stream_events"]
