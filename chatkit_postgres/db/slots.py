"""Hands out the places in a pool of connections: in the order of the requests, with the background a little behind."""

import asyncio
import heapq
import time
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Waiting:
    """How to wait for a place when none is free."""

    seconds: float | None
    """After that many seconds, give up; None: never."""
    behind_seconds: float = 0
    """Everybody who asks within that time goes first."""


REQUEST = Waiting(seconds=10)
"""An error after ten seconds is of more use than a page that never loads."""
TURN = Waiting(seconds=None)
"""A running turn has a time limit of its own, and what it has to save must not be lost because the process is busy."""
BACKGROUND = Waiting(seconds=None, behind_seconds=0.2)
"""Checkpoints and heartbeats let the beginnings and ends of turns go first, but not so long that text could be lost."""

waiting: ContextVar[Waiting] = ContextVar("waiting", default=REQUEST)
"""Of the current task."""


class Slots:
    def __init__(self, count_: int) -> None:
        self._free = count_
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def acquire(self) -> None:
        """Raises TimeoutError."""
        if self._free:
            self._free -= 1
            return
        how = waiting.get()
        granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (time.monotonic() + how.behind_seconds, next(self._numbers), granted))
        try:
            async with asyncio.timeout(how.seconds):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                # It was granted at the same moment.
                self.release()
            granted.cancel()
            raise

    def release(self) -> None:
        while self._queue:
            _, _, granted = heapq.heappop(self._queue)
            if not granted.done():
                granted.set_result(None)
                return
        self._free += 1
