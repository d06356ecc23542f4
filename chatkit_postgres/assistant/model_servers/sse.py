"""Reads a model server's event stream as the openai client's types.

Deltas of one text that arrive in one read become one event, because an event costs a hundred times as much as appending
to one. The more streams are open, the longer each of them waits before its next read, so that a read returns more.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any, Self

import httpx2
from agents.exceptions import _mark_error_to_drain_stream_events
from openai import APIConnectionError, APIError, APITimeoutError, AsyncAPIResponse, BaseModel
from openai.types import CompletionUsage

from chatkit_postgres.assistant.model_servers.event_decoder import EventDecoder, parse_json
from chatkit_postgres.assistant.model_servers.pace import Pace
from chatkit_postgres.assistant.model_servers.usage import add_failed_usage

DRAIN_SECONDS = 0.1
MAX_SECONDS = 0.1
PACE = Pace(seconds_per_stream=0.0015, max_seconds=MAX_SECONDS, tick_seconds=0.01)


async def _drain(bodies: AsyncIterator[bytes]) -> None:
    """Read what follows the end, so that the connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            _ = [body async for body in bodies]


def drained(error: APIError) -> APIError:
    """Mark an error, so that the Agents SDK does not drop the text that arrived just before."""
    _mark_error_to_drain_stream_events(error)
    return error


class ModelStream:
    """Iterates over the events of one streamed response. Raises APIError after the last event if the response failed,
    was truncated or broke off."""

    def __init__(self, answer: AsyncAPIResponse[Any]) -> None:
        self.response = answer.http_response
        sent = answer.http_request
        # The request that was sent holds the whole history, which is not kept in memory while the answer streams.
        self._request = self.response.request = httpx2.Request(sent.method, sent.url)
        self._decoder = EventDecoder()
        self._events = self._read()
        self.usage: CompletionUsage | None = None
        # Ended: the model has marked its response as complete. Done: nothing more is to be read.
        self.is_ended = self.is_done = self._is_over = False

    def __aiter__(self) -> AsyncIterator[BaseModel]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._events.aclose()
        await self.response.aclose()

    def text_key(self, data: dict[str, Any]) -> object:
        """A key of the text to which the event is a delta; None for any other event."""
        raise NotImplementedError

    def append(self, first: dict[str, Any], data: dict[str, Any]) -> None:
        raise NotImplementedError

    def read(self, data: dict[str, Any]) -> BaseModel | None:
        """The event as its type; None if it is empty."""
        raise NotImplementedError

    def failure(self) -> APIError | None:
        """The error that an incomplete response ends in, or None."""
        return None if self.is_ended else APIConnectionError(message="the answer broke off", request=self._request)

    def error(self, body: object) -> APIError:
        message = body.get("message") if isinstance(body, dict) else body
        return APIError(message if isinstance(message, str) else "the answer failed", self._request, body=body)

    async def _read(self) -> AsyncGenerator[BaseModel, None]:
        bodies = self._bodies()
        try:
            with PACE.stream():
                async for body in bodies:
                    events, is_text, error = self._joined(body)
                    # Not kept until the next read: the first events have the whole response.
                    events.reverse()
                    while events:
                        if (event := self.read(events.pop())) is not None:
                            yield event
                    event = None
                    if error is not None:
                        raise error
                    if self.is_done:
                        await _drain(bodies)
                        break
                    if is_text:
                        await PACE.pause()
            if (failure := self.failure()) is not None:
                raise failure
        except APIError as error:
            add_failed_usage(self.usage)
            # A truncation explains more than the broken connection after it.
            raise drained((self.is_ended and self.failure()) or error) from error.__cause__
        finally:
            await bodies.aclose()
            await self.response.aclose()

    async def _bodies(self) -> AsyncGenerator[bytes, None]:
        try:
            async for body in self.response.aiter_bytes():
                yield body
        except httpx2.RequestError as error:
            if not self.is_ended:
                kind = APITimeoutError if isinstance(error, httpx2.TimeoutException) else APIConnectionError
                raise kind(request=self._request) from error
        # Some servers omit the empty line after the last event, or break off within that event.
        self._is_over = True
        yield b"\n\n"

    def _joined(self, body: bytes) -> tuple[list[dict[str, Any]], bool, APIError | None]:
        """The chunk's events (adjacent deltas joined), whether the last is a delta, the error to raise after them."""
        joined: list[dict[str, Any]] = []
        key = None
        try:
            events = self._decoder.feed(body)
        except ValueError as endless:
            return [], False, self.error(str(endless))
        for event in events:
            if event.startswith(b"[DONE]"):
                self.is_done = True
                break
            try:
                data = parse_json(event)
            except (ValueError, RecursionError):
                return joined, False, None if self._is_over else self.error("the answer is not JSON")
            if not isinstance(data, dict):
                continue
            if error := data.get("error"):
                return joined, False, self.error(error)
            previous, key = key, self.text_key(data)
            if key is not None and key == previous:
                self.append(joined[-1], data)
            else:
                joined.append(data)
        return joined, key is not None, None
