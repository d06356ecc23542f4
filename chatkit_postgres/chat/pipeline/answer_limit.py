"""Ends an answer that exceeds its limit of characters."""

from collections.abc import Container, Sequence

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.errors import AnswerTooLong

ITEM_BUDGET = 4
"""Whole items, widgets and tasks are sent again on every update, so they get this many times the limit of text."""


class LimitAnswer(Stage):
    """Cuts streamed text at the limit. Raises AnswerTooLong once the cut text was sent.

    Items with one of ``free_ids`` are not counted: they were stored before the answer began.
    """

    def __init__(self, max_characters: int, free_ids: Container[str] = frozenset()) -> None:
        self._free_ids = free_ids
        self._text_left = max_characters
        self._items_left = ITEM_BUDGET * max_characters
        self._is_exceeded = False

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        match event:
            case ThreadItemUpdatedEvent(update=AssistantMessageContentPartTextDelta(delta=delta) as update):
                if len(delta) > self._text_left:
                    self._is_exceeded = True
                    cut = update.model_copy(update={"delta": delta[: self._text_left]})
                    return (event.model_copy(update={"update": cut}),)
                self._text_left -= len(delta)
            case ThreadItemDoneEvent(item=item) | ThreadItemReplacedEvent(item=item) if item.id in self._free_ids:
                pass
            case _:
                self._items_left -= len(event.model_dump_json())
                if self._items_left < 0:
                    raise AnswerTooLong
        return (event,)

    async def sent(self, events: Sequence[ThreadStreamEvent]) -> Sequence[ThreadStreamEvent]:  # noqa: ARG002
        if self._is_exceeded:
            raise AnswerTooLong
        return ()
