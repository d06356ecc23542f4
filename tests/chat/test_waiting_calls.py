"""The output of a client tool finds its call, whatever stands behind it."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from chatkit.types import (
    ClientToolCallItem,
    EndOfTurnItem,
    GeneratedImage,
    GeneratedImageItem,
    HiddenContextItem,
    SDKHiddenContextItem,
    StructuredInputAnswerSubmission,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputSubmission,
    ThreadAddClientToolOutputParams,
    ThreadAddStructuredInputParams,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadsAddClientToolOutputReq,
    ThreadsAddStructuredInputReq,
    ThreadStreamEvent,
    WorkflowItem,
)

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Conflict, NothingPending
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, Scripted, message
from tests.support.items import NAIVE, assistant_message, examples_of, thread, user_message


def alice() -> RequestContext:
    return RequestContext(user_id="alice")


def call(item_id: str = "c") -> ClientToolCallItem:
    return ClientToolCallItem(id=item_id, thread_id="t", created_at=NAIVE, call_id=item_id, name="look", arguments={})


def behind() -> dict[str, list[ThreadItem]]:
    common: dict[str, Any] = {"thread_id": "t", "created_at": NAIVE}
    return {
        "nothing": [],
        "hidden context": [HiddenContextItem(id=f"h{n}", content="x", **common) for n in range(30)],
        "the SDK's hidden context": [SDKHiddenContextItem(id="s", content="cancelled", **common)],
        "a failed answer": [assistant_message("t", "a", "half an")],
        "a picture": [GeneratedImageItem(id="i", image=GeneratedImage(id="i", url="https://example.com"), **common)],
        "a workflow": [examples_of(WorkflowItem, "t")[0]],
        "the end of a turn": [EndOfTurnItem(id="e", **common)],
    }


async def asked(store: DatabaseStore, *items: ThreadItem) -> None:
    await store.save_thread(thread("t"), alice())
    for item in (user_message("t", "u"), *items):
        await store.add_thread_item("t", item, alice())


async def answered(store: DatabaseStore, result: Any) -> list[dict[str, Any]]:
    request = ThreadsAddClientToolOutputReq(params=ThreadAddClientToolOutputParams(thread_id="t", result=result))
    return await Chat(store, Scripted(ThreadItemDoneEvent(item=message("m", "Thank you")))).events(request)


@pytest.mark.parametrize("what", behind())
async def test_an_output_finds_its_call(store: DatabaseStore, what: str) -> None:
    await asked(store, call(), *behind()[what])
    events = await answered(store, {"title": "A page"})
    assert events[-1]["item"]["content"][0]["text"] == "Thank you"
    kept = await store.load_item("t", "c", alice())
    assert isinstance(kept, ClientToolCallItem)
    assert (kept.status, kept.output) == ("completed", {"title": "A page"})
    # Once.
    with pytest.raises(Conflict):
        await answered(store, {"title": "Another"})


async def test_a_newer_message_makes_a_call_void(store: DatabaseStore) -> None:
    await asked(store, call(), user_message("t", "never mind"))
    with pytest.raises(NothingPending):
        await answered(store, 1)


class Watching(Scripted):
    """Notes the kinds of what it is to answer."""

    seen: Sequence[str] = ()

    def respond(self, history: Sequence[ThreadItem], context: Any) -> AsyncGenerator[ThreadStreamEvent, None]:
        self.seen = [f"{item.type} {item.id}" for item in history]
        return super().respond(history, context)


async def test_questions_that_are_answered_late_are_what_there_is_to_answer(store: DatabaseStore) -> None:
    """Their place in the thread is where they were asked."""
    asking = StructuredInputItem(
        id="q", thread_id="t", created_at=NAIVE, inputs=[StructuredInputFreeform(id="a", question="Which?")]
    )
    await asked(store, asking, user_message("t", "never mind"), assistant_message("t", "a", "As you like"))
    given = StructuredInputSubmission(answers={"a": StructuredInputAnswerSubmission(values=["this one"])})
    params = ThreadAddStructuredInputParams(thread_id="t", item_id="q", input=given)
    watching = Watching(ThreadItemDoneEvent(item=message("m", "Thank you")))
    await Chat(store, watching).events(ThreadsAddStructuredInputReq(params=params))
    assert watching.seen == ["user_message u", "user_message never mind", "assistant_message a", "structured_input q"]


async def test_the_newest_of_several_calls_is_answered(store: DatabaseStore) -> None:
    await asked(store, call("old"), call("new"))
    await answered(store, 1)
    assert "pending" in (await store.load_item("t", "old", alice())).model_dump_json()
    assert "completed" in (await store.load_item("t", "new", alice())).model_dump_json()
