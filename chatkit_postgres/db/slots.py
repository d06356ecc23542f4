"""Hands out the slots of a pool of connections in the order of the requests, with the background a little behind."""

import asyncio
import heapq
import time
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How to wait for a slot when none is free."""

    seconds: float | None
    """After that many seconds, give up; None: never."""
    yield_seconds: float = 0
    """Whoever asks within that time goes first; less than zero: it goes before whoever has asked within that time."""


REQUEST = WaitPolicy(seconds=10)
"""An error after ten seconds is of more use than a page that never loads."""
BEGINNING = WaitPolicy(seconds=30)
"""Without a database, the sender of a message is told so."""
TURN = WaitPolicy(seconds=None)
"""A running turn has a time limit of its own, and what it has to save must not be lost because the process is busy."""
BACKGROUND = WaitPolicy(seconds=None, yield_seconds=0.2)
"""Checkpoints and heartbeats let the beginnings and ends of turns go first, but not so long that text could be lost."""
OVERDUE = WaitPolicy(seconds=None, yield_seconds=-30)
"""A background statement that comes late: it stands for all turns of the process, which others would take for dead."""

wait_policy: ContextVar[WaitPolicy] = ContextVar("wait_policy", default=REQUEST)
"""The policy of the current task."""


class Slots:
    def __init__(self, count_: int) -> None:
        self._free = count_
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def acquire(self) -> None:
        """Raises TimeoutError after the ``seconds`` of the current task's policy."""
        if self._free:
            self._free -= 1
            return
        policy = wait_policy.get()
        granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (time.monotonic() + policy.yield_seconds, next(self._numbers), granted))
        try:
            async with asyncio.timeout(policy.seconds):
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
