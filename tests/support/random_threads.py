"""Stores random threads with every type of item, and with turns that ended in every state."""

import random
from typing import Any

from chatkit.types import (
    ClientToolCallItem,
    FileAttachment,
    ImageAttachment,
    ThreadItem,
    UserMessageItem,
    UserMessageTagContent,
)

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import kind_of, new_id
from chatkit_postgres.store.outcome import EndState, Outcome
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.tool_calls import ToolCall
from tests.support.items import NAIVE, assistant_message, examples_of, item_types, thread, user_message

ENDS: list[tuple[EndState, str | None]] = [
    ("completed", None),
    ("completed", None),
    ("failed", "model_unavailable"),
    ("failed", "content_refused"),
    ("failed", "context_too_long"),
    ("failed", "picture_refused"),
    ("failed", "input_guardrail_tripped"),
    ("failed", "output_guardrail_tripped"),
    ("stopped", None),
    ("superseded", None),
    ("interrupted", "interrupted"),
    ("waiting", None),
]
CALL_IDS = ["call_0", "call_0", "x" * 200, "", "call_1"]
STRANGE = ["", " ", "NUL \x00", "ä\u200d", "\u2028", "x" * 3000]
EXAMPLES = [item for kind in item_types() for item in examples_of(kind, "?")]


async def random_thread(store: DatabaseStore, user: str, rng: random.Random) -> str:
    """Stores a random thread; returns its id."""
    thread_id = new_id("thread")
    context = RequestContext(user_id=user)
    await store.save_thread(thread(thread_id), context)
    asked: list[str] = []
    for _ in range(rng.randint(0, 7)):
        if asked and rng.random() < 0.2:
            await _retried(store, thread_id, rng.choice(asked), user, rng)
        elif rng.random() < 0.2:
            await store.add_thread_item(thread_id, _some_item(thread_id, rng), context)
        else:
            asked.append(await _turn(store, thread_id, user, rng))
    return thread_id


async def _turn(store: DatabaseStore, thread_id: str, user: str, rng: random.Random) -> str:
    context = RequestContext(user_id=user, session=WriteSession("threads.add_user_message"))
    question = _question(thread_id, rng)
    await store.add_thread_item(thread_id, question, context)
    await _answered(store, thread_id, context, rng)
    return question.id


async def _retried(store: DatabaseStore, thread_id: str, item_id: str, user: str, rng: random.Random) -> None:
    context = RequestContext(user_id=user, session=WriteSession("threads.retry_after_item"))
    try:
        await store.turns.open_retry(thread_id, item_id, context)
    except NotFound:
        # An earlier retry has replaced the response that contained the message.
        return
    await _answered(store, thread_id, context, rng)


async def _answered(store: DatabaseStore, thread_id: str, context: RequestContext, rng: random.Random) -> None:
    for _ in range(rng.randint(0, 4)):
        if rng.random() < 0.4:
            await store.tool_calls.add(thread_id, _tool_calls(rng), context)
        item = _some_item(thread_id, rng)
        # In a turn, the attachments of a message must have been uploaded.
        own = RequestContext(user_id=context.user_id) if isinstance(item, UserMessageItem) else context
        await store.add_thread_item(thread_id, item, own)
    if rng.random() < 0.2:
        await store.tool_calls.add(thread_id, _tool_calls(rng), context)
    state, error_code = rng.choice(ENDS)
    partial = [assistant_message(thread_id, new_id("message"), "Half of an ans")] if state != "completed" else []
    await store.turns.finish(context, Outcome(state, error_code), unfinished=partial)


def _tool_calls(rng: random.Random) -> list[ToolCall]:
    """Of one response of a model, as its tools and their servers have it."""
    return [
        ToolCall(
            name=rng.choice(["look", "mcp_files__read_text", "web_search"]),
            arguments=rng.choice(["{}", '{"at": "é"}', "", "no json", '["a list"]', '{"long": "' + "x" * 9000 + '"}']),
            output=rng.choice(["said", "y" * 40_000, *STRANGE]),
            is_function=rng.random() < 0.8,
        )
        for _ in range(rng.randint(1, 3))
    ]


def _question(thread_id: str, rng: random.Random) -> UserMessageItem:
    text = rng.choice(["A question.", *STRANGE])
    question = user_message(thread_id, new_id("message"), text)
    if rng.random() < 0.2:
        tag = UserMessageTagContent(id="t", text="tag", data={"of": rng.choice(STRANGE)})
        question.content.append(tag)
    if rng.random() < 0.2:
        question.quoted_text = "An old sentence."
    return question


def _some_item(thread_id: str, rng: random.Random) -> ThreadItem:
    kind = rng.random()
    if kind < 0.3:
        return assistant_message(thread_id, new_id("message"), rng.choice(["An answer.", *STRANGE]))
    if kind < 0.6:
        return _call(thread_id, rng)
    if kind < 0.7:
        return _with_files(thread_id)
    example = rng.choice(EXAMPLES)
    return example.model_copy(deep=True, update={"id": new_id(kind_of(example)), "thread_id": thread_id})


def _call(thread_id: str, rng: random.Random) -> ClientToolCallItem:
    outputs: list[Any] = ["said", {"rows": [1, None]}, None, "", "y" * 5000]
    return ClientToolCallItem(
        id=new_id("tool_call") if rng.random() < 0.9 else new_id("tool_call") * 4,
        thread_id=thread_id,
        created_at=NAIVE,
        status="completed" if rng.random() < 0.8 else "pending",
        call_id=rng.choice(CALL_IDS),
        name="look",
        arguments={"at": "é"},
        output=rng.choice(outputs),
    )


def _with_files(thread_id: str) -> UserMessageItem:
    question = user_message(thread_id, new_id("message"), "With files.")
    question.attachments = [
        FileAttachment(id=new_id("attachment"), name="a.pdf", mime_type="application/pdf"),
        ImageAttachment(id=new_id("attachment"), name="b.png", mime_type="image/png", preview_url="https://x.example"),
    ]
    return question
