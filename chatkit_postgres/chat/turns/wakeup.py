"""Wakeup: wakes the one task that waits for it. It is smaller than asyncio.Event, because thousands wait at once."""

import asyncio


class Wakeup:
    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        _resolve(self._waiter)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self, seconds: float) -> bool:
        """Wait until it is set, ``seconds`` at most. Returns whether it is set."""
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            # asyncio.timeout would cost as much as the rest of a read.
            timer = loop.call_later(seconds, _resolve, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._is_set


def _resolve(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
