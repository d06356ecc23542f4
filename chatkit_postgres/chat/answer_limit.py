"""Ends an answer that exceeds its limit of characters."""

from collections.abc import AsyncIterator

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)

from chatkit_postgres.errors import AnswerTooLong

# Everything that is not streamed text (whole items, widgets, tasks) repeats itself when it is updated.
OTHERS = 4


async def limited(events: AsyncIterator[ThreadStreamEvent], max_characters: int) -> AsyncIterator[ThreadStreamEvent]:
    """The same events. Streamed text is cut at the limit, and then AnswerTooLong is raised."""
    text_left, others_left = max_characters, OTHERS * max_characters
    async for event in events:
        match event:
            case ThreadItemUpdatedEvent(update=AssistantMessageContentPartTextDelta(delta=delta) as update):
                if len(delta) > text_left:
                    yield event.model_copy(update={"update": update.model_copy(update={"delta": delta[:text_left]})})
                    raise AnswerTooLong
                text_left -= len(delta)
            case _:
                others_left -= len(event.model_dump_json())
                if others_left < 0:
                    raise AnswerTooLong
        yield event
