"""Bounds how many turns begin at once."""

import asyncio

HOLD_SECONDS = 5
"""A beginning that takes longer, because it waits for something else, keeps no other turn from its own."""


class Beginnings:
    def __init__(self, max_at_once: int) -> None:
        self.places = asyncio.Semaphore(max_at_once)


class Beginning:
    """One turn's place, from its first statement until its answer begins."""

    def __init__(self, beginnings: Beginnings) -> None:
        self._places = beginnings.places
        self._limit: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        await self._places.acquire()
        self._limit = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.leave)

    def leave(self) -> None:
        """Does nothing the second time."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
            self._places.release()
