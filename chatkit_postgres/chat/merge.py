"""Merges the events an assistant yields with those it sends through ``context.stream``, in one order."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, get_args

from chatkit.agents import AgentContext
from chatkit.server import stream_widget
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
)
from pydantic import PrivateAttr

from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.ports import Events

MAX_QUEUED_DELTAS = 16
"""Queued text deltas after which their producer waits."""
END_SECONDS = 10.0
"""How long an assistant's code may go on after its cancellation."""
EVENTS: tuple[type, ...] = get_args(get_args(ThreadStreamEvent)[0])

logger = get_logger(__name__)


class StreamClosed(RuntimeError):
    pass


class NotAnEvent(TypeError):
    """An assistant yielded, or streamed, what is no event of the protocol."""


class ExitCalled(RuntimeError):
    """An assistant's code has called ``sys.exit``, which would end the whole process."""


class EventQueue:
    """Events that wait to be sent, with the producers that wait for them."""

    def __init__(self) -> None:
        self._waiting: list[tuple[ThreadStreamEvent | None, asyncio.Future[None] | None]] = []
        self._arrived: asyncio.Future[None] | None = None
        self._is_open = False

    async def send(self, event: ThreadStreamEvent) -> None:
        """Returns when the event was saved and sent. Raises StreamClosed."""
        if not self._is_open:
            raise StreamClosed("nothing can be streamed here: the answer has ended, or the action only returns an item")
        _check(event)
        sent = asyncio.get_running_loop().create_future()
        self._put(event, sent)
        await sent

    async def offer(self, delta: ThreadStreamEvent) -> None:
        """Queue a text delta without waiting until it is sent, unless too many are queued. Dropped after the end."""
        if not self._is_open:
            return
        if len(self._waiting) < MAX_QUEUED_DELTAS:
            self._put(delta)
            return
        try:
            await self.send(delta)
        except StreamClosed:
            return

    def remind(self, event: ThreadStreamEvent) -> None:
        """Queue an event for which nobody waits; dropped before the beginning and after the end."""
        if self._is_open:
            self._put(event)

    async def merge(self, events: Events) -> Events:
        """Yield the events and, in between, those that are sent through the queue."""

        async def run() -> None:
            try:
                # Closed as soon as this task is cancelled, which also ends the model's stream.
                async with aclosing(events):
                    async for event in events:
                        await (self.offer(event) if _is_delta(event) else self.send(event))
            except SystemExit as error:
                raise ExitCalled from error
            finally:
                self._put(None)

        self._is_open = True
        running = asyncio.create_task(run())
        sent: asyncio.Future[None] | None = None
        try:
            while True:
                while not self._waiting:
                    self._arrived = asyncio.get_running_loop().create_future()
                    await self._arrived
                event, sent = self._waiting.pop(0)
                if event is None:
                    break
                yield event
                if sent is not None and not sent.done():
                    sent.set_result(None)
            await running
        finally:
            self._is_open = False
            await _cancelled(running)
            for waiting in (sent, *(waiting for _, waiting in self._waiting)):
                if waiting is not None and not waiting.done():
                    waiting.set_exception(StreamClosed("the answer has ended"))
            self._waiting.clear()

    def _put(self, event: ThreadStreamEvent | None, sent: asyncio.Future[None] | None = None) -> None:
        self._waiting.append((event, sent))
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


async def _cancelled(running: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end, but not for ever: a team's code may swallow the cancellation. What it sends
    after that is refused."""
    running.cancel()
    _, pending = await asyncio.wait([running], timeout=END_SECONDS)
    if pending:
        logger.error("assistant_ignores_cancellation", cure="let CancelledError pass; clean up in a finally")
    elif not running.cancelled():
        running.exception()  # Mark it as retrieved: it was raised already, or does not matter any more.


def _check(event: object) -> None:
    if not isinstance(event, EVENTS):
        cure = "yield events, such as ThreadItemDoneEvent(item=...), and nothing else"
        logger.error("assistant_yields_no_event", yielded=type(event).__name__, cure=cure)
        raise NotAnEvent


def _is_delta(event: ThreadStreamEvent) -> bool:
    return isinstance(event, ThreadItemUpdatedEvent) and isinstance(event.update, AssistantMessageContentPartTextDelta)


# Any, because pydantic would inspect a RequestContext, which is none of its models.
class LiveContext(AgentContext[Any]):
    """An AgentContext whose ``stream`` and ``stream_widget`` also work where no agent runs."""

    # An object of its own, because reading a private attribute of a pydantic model costs more than sending an event.
    _queue: EventQueue = PrivateAttr(default_factory=EventQueue)

    @property
    def queue(self) -> EventQueue:
        return self._queue

    async def stream(self, event: ThreadStreamEvent) -> None:
        """Returns when the event was saved and sent."""
        await self._queue.send(event)

    async def stream_widget(self, widget: Any, copy_text: str | None = None) -> None:
        async for event in stream_widget(self.thread, widget, copy_text, self.generate_id):
            await self.stream(event)

    @classmethod
    def of(cls, thread: ThreadMetadata, store: Any, context: RequestContext) -> "LiveContext":
        return cls(thread=thread, store=store, request_context=context)


Respond = Callable[[LiveContext, UserMessageItem | None], Events]
"""Answers a message of the user, or what else has happened in the thread."""
