"""EventBuffer: the encoded events of a turn, for any number of readers.

Each reader starts at the beginning, or at the end, and reads at its own pace; none of them slows the turn. Text that a
reader has not received yet is merged, so a slow reader receives fewer and longer deltas, and the buffer never grows
beyond the answer.
"""

import asyncio
from collections.abc import Callable

from chatkit.types import AssistantMessageContentPartTextDelta, ThreadItemUpdatedEvent, ThreadStreamEvent
from pydantic_core import to_json

from chatkit_postgres.chat.turns.wakeup import Wakeup
from chatkit_postgres.context import RequestContext

TEXT_PLACEHOLDER = "\ue000"
"""A private-use character that marks where the delta's text goes in a pre-encoded frame."""

Encode = Callable[[ThreadStreamEvent, RequestContext], bytes]
"""Encodes an event for a user: signed URLs are the user's own."""


class DeltaTemplate:
    """Encodes the deltas of one part of one message: only the text differs between these frames."""

    __slots__ = ("_head", "_tail")

    def __init__(self, item_id: str, content_index: int, encode: Callable[[ThreadStreamEvent], bytes]) -> None:
        update = AssistantMessageContentPartTextDelta(content_index=content_index, delta=TEXT_PLACEHOLDER)
        frame = encode(ThreadItemUpdatedEvent(item_id=item_id, update=update))
        self._head, _, self._tail = frame.partition(to_json(TEXT_PLACEHOLDER))

    def frame(self, text: str) -> bytes:
        return self._head + to_json(text) + self._tail


class _TextRun:
    """Adjacent deltas of one part of one message."""

    __slots__ = ("_template", "content_index", "deltas", "item_id")

    def __init__(self, item_id: str, content_index: int, encode: Callable[[ThreadStreamEvent], bytes]) -> None:
        self.item_id = item_id
        self.content_index = content_index
        self.deltas: list[str] = []
        self._template = DeltaTemplate(item_id, content_index, encode)

    def frame(self, delta: int) -> bytes:
        """The text from a delta on, as one delta."""
        return self._template.frame("".join(self.deltas[delta:]))


class EventBuffer:
    def __init__(self, encode: Callable[[ThreadStreamEvent], bytes], *, is_repeatable: bool = True) -> None:
        """``is_repeatable``: whether others may read from the start later. Otherwise what the only reader has read is
        forgotten."""
        self._encode = encode
        self._is_repeatable = is_repeatable
        self._entries: list[bytes | _TextRun] = []
        self._readers: set[Reader] = set()
        self._is_abandoned = False
        """Whether nobody reads it any more, and nobody can."""
        self._replacing: dict[str, int] = {}
        """Item id to the place of the last event that replaces the item."""
        self.ended = False

    def add(self, event: ThreadStreamEvent, *, replaces: str | None = None) -> None:
        """``replaces``: the id of the item that the event shows as a whole. Whoever has not read the last such event
        receives only this one. The buffer must be repeatable."""
        if self._is_abandoned:
            return
        if replaces is not None:
            if (before := self._replacing.get(replaces)) is not None:
                self._entries[before] = b""
            self._replacing[replaces] = len(self._entries)
        match event:
            case ThreadItemUpdatedEvent(
                item_id=item_id, update=AssistantMessageContentPartTextDelta(content_index=index, delta=delta)
            ):
                last = self._entries[-1] if self._entries else None
                if not isinstance(last, _TextRun) or (last.item_id, last.content_index) != (item_id, index):
                    last = _TextRun(item_id, index, self._encode)
                    self._entries.append(last)
                last.deltas.append(delta)
            case _:
                self._entries.append(self._encode(event))
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def read_from_start(self) -> "Reader":
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def read_from_end(self) -> "Reader":
        """A reader of what is added from now on."""
        reader = self.read_from_start()
        reader.place_at(*self._end())
        return reader

    def _end(self) -> tuple[int, int]:
        last = len(self._entries) - 1
        # The next delta may extend this run.
        if last >= 0 and isinstance(run := self._entries[last], _TextRun):
            return last, len(run.deltas)
        return last + 1, 0

    @property
    def readers(self) -> int:
        return len(self._readers)

    def leave(self, reader: "Reader") -> None:
        self._readers.discard(reader)
        if not self._is_repeatable and not self._readers:
            self._is_abandoned = True
            self._entries.clear()

    def frames(self, entry: int, delta: int) -> tuple[bytes, int, int]:
        """The frames from a place in the buffer on, and the next place."""
        frames = []
        while entry < len(self._entries):
            found = self._entries[entry]
            if isinstance(found, bytes):
                frames.append(found)
            elif delta < len(found.deltas):
                frames.append(found.frame(delta))
            entry, delta = entry + 1, 0
        return b"".join(frames), *self._end()

    def forget(self, entry: int, delta: int) -> tuple[int, int]:
        """Forget what comes before a place in the buffer, unless it may be read again. Returns where that place is
        now."""
        if self._is_repeatable or len(self._readers) > 1:
            return entry, delta
        del self._entries[:entry]
        if self._entries and isinstance(run := self._entries[0], _TextRun):
            del run.deltas[:delta]
        return 0, 0

    def _wake(self) -> None:
        for reader in self._readers:
            reader.has_news.set()


class Reader:
    """One connection's place in the buffer."""

    def __init__(self, buffer: EventBuffer) -> None:
        self._buffer = buffer
        self._entry = 0
        self._delta = 0
        self.has_news = Wakeup()

    def place_at(self, entry: int, delta: int) -> None:
        self._entry, self._delta = entry, delta

    async def read(self, seconds: float) -> bytes | None:
        """All frames that were not read yet; None after ``seconds`` without one; empty at the end, when the turn's end
        is saved."""
        has_waited = False
        while True:
            self.has_news.clear()
            ended = self._buffer.ended
            frames, self._entry, self._delta = self._buffer.frames(self._entry, self._delta)
            if frames or ended:
                self._entry, self._delta = self._buffer.forget(self._entry, self._delta)
                if not has_waited:
                    await asyncio.sleep(0)
                return frames
            if not await self.has_news.wait(seconds):
                return None
            has_waited = True
