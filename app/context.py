"""Who asks, under which request id, and in which turn. The store and the SDK hand this object around."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ThreadItemUpdate,
)


@dataclass(slots=True)
class RetryWindow:
    """The old answer that a retry replaces: ``retry_from < position < open_position``."""

    retry_from: int
    open_position: int


class UnfinishedAnswer:
    """An assistant's message that is still being streamed."""

    def __init__(self, item: AssistantMessageItem) -> None:
        self._item = item
        self._parts = [([part.text], [*part.annotations]) for part in item.content]
        self.is_saved = True

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case AssistantMessageContentPartTextDelta():
                # Pieces are joined when they are saved: adding to a long string copies it each time.
                self._part(update.content_index)[0].append(update.delta)
            case AssistantMessageContentPartAdded() | AssistantMessageContentPartDone():
                texts, annotations = self._part(update.content_index)
                texts[:], annotations[:] = [update.content.text], update.content.annotations or annotations
            case AssistantMessageContentPartAnnotationAdded():
                self._part(update.content_index)[1].append(update.annotation)
            case _:
                return
        self.is_saved = False

    def snapshot(self) -> AssistantMessageItem | None:
        """The message as far as it has come; None while it says nothing."""
        content = [AssistantMessageContent(text="".join(texts), annotations=notes) for texts, notes in self._parts]
        if not any(part.text.strip() for part in content):
            return None
        return self._item.model_copy(update={"content": content})

    def _part(self, index: int) -> tuple[list[str], list[Annotation]]:
        while len(self._parts) <= index:
            self._parts.append(([], []))
        return self._parts[index]


@dataclass(slots=True)
class Turn:
    """Everything one streaming operation does. Its id is the fencing token of its writes."""

    operation: str
    id: UUID = field(default_factory=uuid4)
    idempotency_key: str | None = None
    request_hash: str | None = None
    """SHA-256 of the request, to tell a repetition from another request under the same key."""
    thread_id: str | None = None
    """The thread whose fence this turn took; None until its first write opened it."""
    retry: RetryWindow | None = None
    """Set while a retry has not yet committed its first final item."""
    sender_name: str | None = None
    """The name of the agent that is speaking, for the reader of the table."""
    error_code: str | None = None
    """Why it failed, once it has."""
    usage: dict[str, int] | None = None
    """Tokens, as the provider counted them."""
    found_fence_of: UUID | None = None
    """The turn that held the thread when this one took it over."""
    unfinished: dict[str, UnfinishedAnswer] = field(default_factory=dict)
    """Item id to each message that was announced and is not done."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while an item of the answer is saved or removed, so that a checkpoint cannot bring it back."""
    committed: dict[str, bytes] = field(default_factory=dict)
    """Item id to digest of every final item this turn has committed: a repeat needs no statement."""
    known_item_ids: set[str] = field(default_factory=set)
    """Item ids that were issued by, or loaded from, the store during this turn: ours, not the model's."""

    @property
    def is_open(self) -> bool:
        return self.thread_id is not None


@dataclass(slots=True)
class RequestContext:
    user_id: str
    request_id: str = field(default_factory=lambda: uuid4().hex)
    locale: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What the user's token says of them, as far as the deployment wants to know it."""
    turn: Turn | None = None
    thread_bases: dict[str, Mapping[str, str | None]] = field(default_factory=dict)
    """Thread id to its columns as this request loaded or last saved them: what differs is what it changed."""
