"""Replays the events of a turn that another process, or an earlier one, opened under the same idempotency key."""

import asyncio
import time
from collections.abc import Callable

from chatkit.errors import ErrorCode
from chatkit.types import (
    ErrorEvent,
    ThreadCreatedEvent,
    ThreadItemDoneEvent,
    ThreadStreamEvent,
    ThreadUpdatedEvent,
)

from chatkit_postgres.chat.turns.buffer import Encode
from chatkit_postgres.chat.wire import is_hidden, thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AnswerStopped, ChatError, Draining, InternalError, NotFound, error_of
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import CREATE
from chatkit_postgres.store.turns import LedgerEntry

POLL_SECONDS = 0.5


class Replay:
    """A reader that waits until the turn has ended, and then reads the items that it wrote: without deltas, progress,
    notices or client effects."""

    def __init__(
        self,
        entry: LedgerEntry,
        key: str,
        context: RequestContext,
        *,
        store: DatabaseStore,
        encode: Encode,
        stale_seconds: float,
        is_draining: Callable[[], bool],
    ) -> None:
        self._entry = entry
        self._key = key
        self._context = context
        self._store = store
        self._encode = encode
        self._stale_seconds = stale_seconds
        self._is_draining = is_draining
        self._has_ended = False
        self._close_stale_at = 0.0

    async def read(self, seconds: float) -> bytes | None:
        """As Reader.read."""
        if self._has_ended:
            return b""
        try:
            events = await self._events_once_ended(seconds)
        except ChatError as error:
            events = [error_event(error.code)]
        if events is None:
            return None
        self._has_ended = True
        return b"".join([self._encode(event, self._context) for event in events])

    async def _events_once_ended(self, seconds: float) -> list[ThreadStreamEvent] | None:
        deadline = time.monotonic() + seconds
        while self._entry.state == "running":
            if time.monotonic() >= deadline:
                return None
            if self._is_draining():
                raise Draining
            await asyncio.sleep(min(POLL_SECONDS, seconds))
            if self._entry.thread_id is not None and time.monotonic() >= self._close_stale_at:
                self._close_stale_at = time.monotonic() + self._stale_seconds / 4
                await self._store.turns.close_stale(
                    self._entry.thread_id, self._context, stale_seconds=self._stale_seconds
                )
            found = await self._store.turns.find(self._key, self._context)
            if found is None:
                raise NotFound
            self._entry = found
        return await self._events()

    async def _events(self) -> list[ThreadStreamEvent]:
        entry = self._entry
        if entry.thread_id is None:
            return [error_event(NotFound.code)]
        thread = await self._store.load_thread(entry.thread_id, self._context)
        shown = thread_response(thread)
        items = await self._store.turns.items_of(entry, self._context)
        events: list[ThreadStreamEvent] = []
        if entry.operation == CREATE:
            events.append(ThreadCreatedEvent(thread=shown))
        events += [ThreadItemDoneEvent(item=item) for item in items if not is_hidden(item)]
        if thread.title is not None:
            events.append(ThreadUpdatedEvent(thread=shown))
        if entry.error_code is not None:
            events.append(error_event(entry.error_code))
        elif entry.state == "stopped":
            # No reader received it, because all had left. A client that repeats the request has lost its connection.
            events.append(error_event(AnswerStopped.code))
        return events


def error_event(code: str) -> ErrorEvent:
    error = error_of(code)
    if isinstance(error, InternalError):
        return ErrorEvent(code=ErrorCode.STREAM_ERROR, allow_retry=True)
    return ErrorEvent(code="custom", message=error.message, allow_retry=error.allow_retry)
