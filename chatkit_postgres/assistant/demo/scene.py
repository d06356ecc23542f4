"""The registry of the demo's scenes, and what they share."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chatkit.agents import AgentContext
from chatkit.store import StoreItemType
from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
)

from chatkit_postgres.context import RequestContext
from chatkit_postgres.ports import Events

Context = AgentContext[RequestContext]
Play = Callable[[Context], Events]

PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Scene:
    group: str
    prompt: str
    """A sentence with the keyword."""
    shows: str
    play: Play


SCENES: dict[str, Scene] = {}
"""By keyword."""


def scene(keyword: str, group: str, prompt: str, shows: str) -> Callable[[Play], Play]:
    def register(function: Play) -> Play:
        SCENES[keyword] = Scene(group, prompt, shows, function)
        return function

    return register


def new(context: Context, kind: StoreItemType = "message") -> dict[str, Any]:
    """The fields that every item requires."""
    return {"id": context.generate_id(kind), "thread_id": context.thread.id, "created_at": datetime.now()}  # noqa: DTZ005 - as the SDK does


async def says(
    context: Context, text: str, annotations: Iterable[Annotation] = (), pause: float = PAUSE_SECONDS
) -> Events:
    """Stream a message word by word, with all events of a model's stream."""
    item = AssistantMessageItem(content=[], **new(context))
    empty, whole = AssistantMessageContent(text=""), AssistantMessageContent(text=text, annotations=[*annotations])
    yield ThreadItemAddedEvent(item=item)
    yield updated(item, AssistantMessageContentPartAdded(content_index=0, content=empty))
    for word in text.split(" "):
        await asyncio.sleep(pause)
        yield updated(item, AssistantMessageContentPartTextDelta(content_index=0, delta=f"{word} "))
    for number, note in enumerate(annotations):
        yield updated(
            item, AssistantMessageContentPartAnnotationAdded(content_index=0, annotation_index=number, annotation=note)
        )
    yield updated(item, AssistantMessageContentPartDone(content_index=0, content=whole))
    yield ThreadItemDoneEvent(item=item.model_copy(update={"content": [whole]}))


def updated(item: Any, update: Any) -> ThreadItemUpdatedEvent:
    return ThreadItemUpdatedEvent(item_id=item.id, update=update)
