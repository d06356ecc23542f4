"""How much Markdown of one user the page in an iframe may have rendered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chatkit_postgres.api.concurrency import ConcurrencyLimit
from chatkit_postgres.errors import TooManyRequests

MILLISECONDS_PER_MINUTE = 10_000
"""Processor time per user: a crafted text takes a thousand times as long as an ordinary one of its length."""
RETRY_AFTER_SECONDS = 10


class RenderLimits:
    """One text of a user at a time, so that the texts of others wait for one of them at most."""

    def __init__(self) -> None:
        self._waiting = ConcurrencyLimit(per_user=100, altogether=1000)
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._limit = RateLimitItemPerMinute(MILLISECONDS_PER_MINUTE)
        self._spent = SlidingWindowCounterRateLimiter(MemoryStorage())

    @asynccontextmanager
    async def rendering(self, user_id: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Waits for the user's earlier texts. Yields the function that takes the seconds that were spent. Raises
        TooManyRequests or Unavailable."""
        with self._waiting.acquire(user_id):
            turn = self._turns.setdefault(user_id, asyncio.Lock())
            async with turn:
                if not await self._spent.test(self._limit, user_id):
                    raise TooManyRequests(retry_after_seconds=RETRY_AFTER_SECONDS)
                yield lambda seconds: self._spend(user_id, round(1000 * seconds))

    async def _spend(self, user_id: str, milliseconds: int) -> None:
        cost = max(1, milliseconds)
        # What is more than the rest of the minute is not counted at all.
        if not await self._spent.hit(self._limit, user_id, cost=cost):
            left = (await self._spent.get_window_stats(self._limit, user_id)).remaining
            if left > 0:
                await self._spent.hit(self._limit, user_id, cost=left)
