"""Bounds how many turns begin at once."""

import asyncio

HOLD_SECONDS = 5
"""After that, a beginning gives its slot up, so that one that hangs does not block the others."""


class Beginnings:
    def __init__(self, max_at_once: int) -> None:
        self.slots = asyncio.Semaphore(max_at_once)


class Beginning:
    """One turn's slot, from its first statement until its answer begins."""

    def __init__(self, beginnings: Beginnings) -> None:
        self._slots = beginnings.slots
        self._limit: asyncio.TimerHandle | None = None
        self.is_waiting = True
        """Whether others have to begin first."""

    async def enter(self) -> None:
        await self._slots.acquire()
        self.is_waiting = False
        self._limit = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.leave)

    def leave(self) -> None:
        """Does nothing the second time."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
            self._slots.release()
