"""Spaces out the reads of concurrent streams."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

IGNORED_LAG_SECONDS = 0.05
LAG_FACTOR = 5
MAX_LAGGING_SECONDS = 1.0
"""Text that is read so late looks uneven, but still moves."""
MANY_STREAMS = 250
"""With fewer, longer pauses spare the event loop too little to justify that more text is lost if the process dies."""


class Pace:
    """Pauses each stream in proportion to the number of open streams, so that each read returns more data.

    When the event loop lags and streams are many, they pause longer: events that are merged cost less than beginnings
    that wait. Streams that pause until the same tick wake up together, which costs the event loop less than separate
    wake-ups.
    """

    def __init__(self, seconds_per_stream: float, max_seconds: float, tick_seconds: float | None = None) -> None:
        self._seconds_per_stream = seconds_per_stream
        self._max_seconds = max_seconds
        self._tick_seconds = tick_seconds
        self._open_streams = 0
        self._lag_seconds = 0.0

    def slow_down(self, lag_seconds: float) -> None:
        """Adapt to the lag of the event loop."""
        self._lag_seconds = lag_seconds

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream as open during the block."""
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1

    async def pause(self) -> None:
        seconds = min(self._max_seconds, self._open_streams * self._seconds_per_stream)
        if self._lag_seconds > IGNORED_LAG_SECONDS and self._open_streams >= MANY_STREAMS:
            seconds = min(MAX_LAGGING_SECONDS, seconds + LAG_FACTOR * self._lag_seconds)
        if self._tick_seconds is not None:
            now = time.monotonic()
            seconds = math.ceil((now + seconds) / self._tick_seconds) * self._tick_seconds - now
        await asyncio.sleep(seconds)
