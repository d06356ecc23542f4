"""Splits a stream of server-sent events (WHATWG, HTML, 9.2), and parses the JSON in them."""

import json
import re
from typing import Any

from pydantic_core import from_json

MAX_EVENT_BYTES = 64 * 1024 * 1024

_USUAL_EVENT = re.compile(rb"(?:event:[^\n]*\n)?data: ([^\n]*)")


class EventDecoder:
    """Returns the data of each event; event names, ids and ``retry`` are ignored."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._ending = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that this chunk completes. Raises ValueError if one exceeds MAX_EVENT_BYTES."""
        is_split_crlf = self._ending == b"\r" and chunk.startswith(b"\n")
        before, self._ending = self._ending.replace(b"\r", b"\n"), chunk[-1:] or self._ending
        lines = chunk[is_split_crlf:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._chunks.append(lines)
        self._size += len(lines)
        if b"\n\n" not in before + lines:
            if self._size > MAX_EVENT_BYTES:
                raise ValueError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
            return []
        *events, rest = b"".join(self._chunks).split(b"\n\n")
        self._chunks, self._size = [rest], len(rest)
        return [data for event in events if (data := _data_of(event))]


def _data_of(event: bytes) -> bytes:
    if (usual := _USUAL_EVENT.fullmatch(event)) is not None:
        return usual[1]
    fields = [line.partition(b":") for line in event.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")


def parse_json(data: bytes) -> Any:
    """Raises ValueError or RecursionError."""
    try:
        return from_json(data)
    except ValueError:
        # Bytes that are not UTF-8, or a lone surrogate: only these are replaced.
        return json.loads(data.decode("utf-8", "replace"))
