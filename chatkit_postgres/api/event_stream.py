"""Sends a turn's events as server-sent events. The connection is a reader: it does not drive the turn."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chatkit_postgres.observability.logs import failure, get_logger

# One newline: a blank line would end an event, and common parsers would dispatch an empty one.
HEARTBEAT = b": ping\n"
SLICE_BYTES = 64 * 1024

logger = get_logger(__name__)


class Readable(Protocol):
    async def read(self, seconds: float) -> bytes | None:
        """All frames that are ready to send; None after ``seconds`` without any; empty at the end of the stream."""
        ...


class EventStream(Response):
    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self, events: Readable, leave: Callable[[], None], *, heartbeat_seconds: float, send_seconds: float
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._leave = leave
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self._sending_since: float | None = None

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            while not self._is_stuck():
                done, _running = await asyncio.wait(
                    {sending, leaving}, timeout=self._send_seconds / 4, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
        finally:
            self._leave()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            logger.info("reader_gone", **failure(error))

    def _is_stuck(self) -> bool:
        """A client that reads nothing for ``send_seconds`` counts as gone."""
        return self._sending_since is not None and time.monotonic() - self._sending_since > self._send_seconds

    async def _send_all(self, send: Send) -> None:
        async def put(message: Message) -> None:
            self._sending_since = time.monotonic()
            await send(message)
            self._sending_since = None

        await put({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (frames := await self._events.read(self._heartbeat_seconds)) != b"":
            body = HEARTBEAT if frames is None else frames
            # In slices, so that a slow client that reads part of a long answer does not count as gone.
            for start in range(0, len(body), SLICE_BYTES):
                part = body[start : start + SLICE_BYTES]
                await put({"type": "http.response.body", "body": part, "more_body": True})
            # Neither reading nor sending has to wait, and other tasks run only while this one does.
            await asyncio.sleep(0)
        await put({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
