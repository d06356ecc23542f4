"""Limits a user's requests per minute."""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chatkit_postgres.errors import TooManyRequests
from chatkit_postgres.store.limits import LimitRepository


class RateLimit(Protocol):
    async def spend(self, user_id: str) -> None:
        """Count one request. Raises TooManyRequests with the number of seconds to wait."""


class RateLimitOfProcess:
    """Counts the requests to this process."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def spend(self, user_id: str) -> None:
        if not await self._window.hit(self._limit, user_id):
            window = await self._window.get_window_stats(self._limit, user_id)
            raise TooManyRequests(retry_after_seconds=max(1, math.ceil(window.reset_time - time.time())))


@dataclass(slots=True)
class Known:
    """What this process knows of a user's rate."""

    counted: int = 0
    """Requests that are counted and were not made yet."""
    counted_until: float = 0
    """When they are no longer counted in the window that they were meant for; a time of ``time.monotonic``."""
    room: float = 0
    """Requests that were left when the rate was last seen."""
    refused_until: float = 0
    """Until when the user is at the limit; a time of ``time.monotonic``."""
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)


class SharedRateLimit:
    """Counts the requests to all processes in the database, a few at once while the limit is far."""

    PART = 40
    """A process counts one in so many of the requests that are left at once. What it counts and does not make is lost
    to the user, so four processes stay within a tenth of the limit."""
    COUNTED_SECONDS = 10.0
    MAX_USERS = 20_000

    def __init__(self, limits: LimitRepository, per_minute: int) -> None:
        self._limits = limits
        self._per_minute = per_minute
        self._known: OrderedDict[str, Known] = OrderedDict()

    async def spend(self, user_id: str) -> None:
        known = self._of(user_id)
        if self._is_counted(known):
            return
        # Requests of one user that arrive at once would each count for all of them.
        async with known.counting:
            if not self._is_counted(known):
                await self._count(user_id, known)

    def _is_counted(self, known: Known) -> bool:
        now = time.monotonic()
        if known.refused_until > now:
            raise TooManyRequests(retry_after_seconds=math.ceil(known.refused_until - now))
        if known.counted == 0 or known.counted_until <= now:
            return False
        known.counted -= 1
        return True

    async def _count(self, user_id: str, known: Known) -> None:
        now, caller = time.monotonic(), {"user_id": user_id}
        at_once = max(1, int(known.room / self.PART)) if known.counted_until > now else 1
        are_counted, rate = await self._limits.count_requests(caller, at_once, per_minute=self._per_minute)
        known.counted, known.counted_until = at_once - 1, now + self.COUNTED_SECONDS
        known.room = self._per_minute - rate.now
        if not are_counted:
            seconds = max(1.0, rate.seconds_until_below(self._per_minute))
            known.counted, known.refused_until = 0, now + seconds
            raise TooManyRequests(retry_after_seconds=math.ceil(seconds))

    def _of(self, user_id: str) -> Known:
        known = self._known.setdefault(user_id, Known())
        self._known.move_to_end(user_id)
        if len(self._known) > self.MAX_USERS:
            self._known.popitem(last=False)
        return known
