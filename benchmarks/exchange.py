"""One HTTP request on a raw socket, and the judgement of the answer that it received.

A client library would cost more processor time for each answer than the servers do.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

WHOLE = "whole"
REFUSED = "refused"


class Exchange(asyncio.Protocol):
    """A request on a connection of its own. ``marked`` is the time at which ``marker`` was received first."""

    def __init__(self, request: bytes, marker: bytes) -> None:
        self.received = bytearray()
        self.begun = 0.0
        self.marked: float | None = None
        self._request = request
        self._marker = marker
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self, port: int, patience: float) -> None:
        """Returns when the server has closed the connection, or after ``patience`` seconds."""
        self.begun = self._loop.time()
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(patience):
                transport, _ = await self._loop.create_connection(lambda: self, "127.0.0.1", port)
                transport.write(self._request)
                await self._ended
        except OSError:
            # Also a time-out: the judgement is made from what was received.
            pass
        finally:
            if transport is not None:
                transport.abort()

    def data_received(self, data: bytes) -> None:
        searched = max(0, len(self.received) - len(self._marker))
        self.received += data
        if self.marked is None and self.received.find(self._marker, searched) >= 0:
            self.marked = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def seconds(self) -> float | None:
        """From the beginning to the marker."""
        return None if self.marked is None else self.marked - self.begun


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def judged(received: bytes, words: int) -> str:
    """``whole``, ``refused`` (503 with Retry-After), or in which way the answer failed."""
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return "no response"
    status = head.split(b" ", 2)[1].decode()
    if status != "200":
        is_refused = status == "503" and b"\r\nretry-after:" in head.lower()
        return REFUSED if is_refused else f"status {status}"
    text, is_ended = _unchunked(body)
    streamed, stored, error = _read_events(text)
    if error is not None:
        return error
    if not is_ended:
        return "broken off"
    expected = [f"w{number}" for number in range(words)]
    return WHOLE if streamed.split() == expected and stored.split() == expected else "words missing"


def _unchunked(body: bytes) -> tuple[bytes, bool]:
    """The content, and whether its last chunk was received."""
    pieces: list[bytes] = []
    place = 0
    while (line_end := body.find(b"\r\n", place)) >= 0:
        size = int(body[place:line_end], 16)
        if not size:
            return b"".join(pieces), True
        pieces.append(body[line_end + 2 : line_end + 2 + size])
        place = line_end + 2 + size + 2
    return b"".join(pieces), False


def _read_events(text: bytes) -> tuple[str, str, str | None]:
    """The text of the deltas, the text of the finished message, and the error."""
    streamed: list[str] = []
    stored = ""
    for event in _events(text):
        match event["type"]:
            case "thread.item.updated":
                streamed.append(event["update"].get("delta", ""))
            case "thread.item.done" if event["item"]["type"] == "assistant_message":
                stored = "".join(part["text"] for part in event["item"]["content"])
            case "error":
                return "".join(streamed), stored, f"{event.get('code')}: {event.get('message')}"
    return "".join(streamed), stored, None


def _events(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.split(b"\n"):
        # An answer that broke off may end in the middle of an event.
        if line.startswith(b"data: ") and line.endswith(b"}"):
            yield json.loads(line[6:])
