"""Sends a turn's events as server-sent events. The connection is a reader: it does not drive the turn."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatkit_postgres.observability.logs import failure, get_logger

# One newline: a blank line would end an event, and common parsers would dispatch an empty one.
HEARTBEAT = b": ping\n"
SLICE_BYTES = 64 * 1024
HANDED_OVER = "chatkit_postgres.streams"
"""Key of a list in the scope of a request: the streams whose events are sent outside of the route."""

logger = get_logger(__name__)


class Readable(Protocol):
    async def read(self, seconds: float) -> bytes | None:
        """All frames that are ready to send; None after ``seconds`` without any; empty at the end of the stream.

        Other tasks run before it returns, because sending need not wait.
        """
        ...


class EventStream(Response):
    """Begins like any response, and appends itself to the list that the outermost middleware puts into the scope under
    HANDED_OVER. That middleware then sends the events: the frames of the route and of all other middleware, which an
    open stream would keep in memory, have ended by then (decision 0026)."""

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self, events: Readable, leave: Callable[[], None], *, heartbeat_seconds: float, send_seconds: float
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self.leave = leave
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self._sending_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._is_abandoned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        except BaseException:
            self.leave()
            raise
        handed_over: list[EventStream] | None = scope.get(HANDED_OVER)
        if handed_over is None:
            await self.send_events(receive, send)
        else:
            handed_over.append(self)

    async def send_events(self, receive: Receive, send: Send) -> None:
        """Send everything up to the end, or until the client has left."""
        # One task sends and another waits for the client's departure, which ends the first.
        self._task = asyncio.current_task()
        leaving = asyncio.create_task(_disconnected(receive))
        leaving.add_done_callback(self._left)
        self._watch()
        try:
            while (frames := await self._events.read(self._heartbeat_seconds)) != b"":
                body = HEARTBEAT if frames is None else frames
                # In slices, so that a slow client that reads part of a long answer does not count as gone.
                for start in range(0, len(body), SLICE_BYTES):
                    self._sending_since = time.monotonic()
                    part = body[start : start + SLICE_BYTES]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    self._sending_since = None
            self._sending_since = time.monotonic()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            # Something else may have cancelled the request as well.
            if self._task is None or not self._is_abandoned or self._task.uncancel():
                raise
        except Exception as error:  # noqa: BLE001 - of whatever kind: it is the connection's
            logger.info("reader_gone", **failure(error))
        finally:
            self._task = None
            if self._watcher is not None:
                self._watcher.cancel()
            leaving.cancel()
            self.leave()

    def _left(self, leaving: asyncio.Task[None]) -> None:
        if not leaving.cancelled():
            if (error := leaving.exception()) is not None:
                logger.info("reader_gone", **failure(error))
            self._abandon()

    def _abandon(self) -> None:
        """The client has left, or counts as gone."""
        if self._task is not None and not self._is_abandoned:
            self._is_abandoned = True
            self._task.cancel()

    def _watch(self) -> None:
        """A client that reads nothing for ``send_seconds`` counts as gone."""
        if self._sending_since is not None and time.monotonic() - self._sending_since > self._send_seconds:
            self._abandon()
        else:
            self._watcher = asyncio.get_running_loop().call_later(self._send_seconds / 4, self._watch)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
