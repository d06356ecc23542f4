"""What an assistant yields, and what it streams beside that, told in one order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from chatkit.agents import AgentContext
from chatkit.server import stream_widget
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
)
from pydantic import PrivateAttr

from chatkit_postgres.context import RequestContext

MOST_WAITING = 16
"""Words that may be ahead of what was told."""

Events = AsyncGenerator[ThreadStreamEvent, None]


class NobodyListens(RuntimeError):
    pass


class Telling:
    """The events that wait to be told, and those who wait until they were."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[ThreadStreamEvent | None, asyncio.Future[None] | None]] = deque()
        self._news: asyncio.Future[None] | None = None
        self._is_heard = False

    async def tell(self, event: ThreadStreamEvent) -> None:
        """Returns when it was saved and told. Raises NobodyListens."""
        if not self._is_heard:
            raise NobodyListens("nothing can be streamed here: an action that is answered at once only returns an item")
        told = asyncio.get_running_loop().create_future()
        self._put(event, told)
        await told

    async def say(self, word: ThreadStreamEvent) -> None:
        """A piece of text, which nobody waits to be saved. After the end it is lost."""
        if not self._is_heard:
            return
        if len(self._waiting) < MOST_WAITING:
            self._put(word)
            return
        try:
            await self.tell(word)
        except NobodyListens:
            return

    async def merged(self, events: Events) -> Events:
        """The events, and between them what is told while they come."""

        async def run() -> None:
            try:
                # Closed at once when this is cancelled: the model's stream ends with it.
                async with aclosing(events):
                    async for event in events:
                        await (self.say(event) if _is_word(event) else self.tell(event))
            finally:
                self._put(None)

        self._is_heard = True
        running = asyncio.create_task(run())
        told: asyncio.Future[None] | None = None
        try:
            while True:
                while not self._waiting:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
                event, told = self._waiting.popleft()
                if event is None:
                    break
                yield event
                if told is not None and not told.done():
                    told.set_result(None)
            await running
        finally:
            self._is_heard = False
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for waiting in (told, *(waiting for _, waiting in self._waiting)):
                if waiting is not None and not waiting.done():
                    waiting.set_exception(NobodyListens("the answer has ended"))
            self._waiting.clear()

    def _put(self, event: ThreadStreamEvent | None, told: asyncio.Future[None] | None = None) -> None:
        self._waiting.append((event, told))
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _is_word(event: ThreadStreamEvent) -> bool:
    return isinstance(event, ThreadItemUpdatedEvent) and isinstance(event.update, AssistantMessageContentPartTextDelta)


# Any, because pydantic would look into a RequestContext, which is none of its models.
class LiveContext(AgentContext[Any]):
    """An AgentContext whose ``stream`` and ``stream_widget`` also work where no agent runs."""

    # In an object of its own: reading a private attribute of a pydantic model costs more than telling an event.
    _telling: Telling = PrivateAttr(default_factory=Telling)

    @property
    def telling(self) -> Telling:
        return self._telling

    async def stream(self, event: ThreadStreamEvent) -> None:
        """Returns when the event was saved and told: what an assistant does next, it does after that."""
        await self._telling.tell(event)

    async def stream_widget(self, widget: Any, copy_text: str | None = None) -> None:
        async for event in stream_widget(self.thread, widget, copy_text, self.generate_id):
            await self.stream(event)

    @classmethod
    def of(cls, thread: ThreadMetadata, store: Any, context: RequestContext) -> "LiveContext":
        return cls(thread=thread, store=store, request_context=context)
