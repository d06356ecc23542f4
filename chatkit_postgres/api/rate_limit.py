"""Limits a user's requests per minute, counted in this process."""

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chatkit_postgres.errors import TooManyRequests


class RateLimit:
    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def spend(self, user_id: str) -> None:
        """Count one request. Raises TooManyRequests with the number of seconds to wait."""
        if not await self._window.hit(self._limit, user_id):
            window = await self._window.get_window_stats(self._limit, user_id)
            raise TooManyRequests(retry_after_seconds=max(1, math.ceil(window.reset_time - time.time())))
