"""Writes that are finished although the one who asked for them is cancelled.

A server that is told of a disconnected reader cancels its stream again at every await, so that what a stock
``ChatKitServer`` saves in ``handle_stream_cancelled`` would never reach the database.
"""

import asyncio
from collections.abc import Coroutine, Hashable
from weakref import WeakKeyDictionary

from app.observability.logs import failure, get_logger

logger = get_logger(__name__)


class DetachedWrites:
    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._interrupted: WeakKeyDictionary[asyncio.Task[object], Hashable] = WeakKeyDictionary()

    async def run(self, key: Hashable, write: Coroutine[object, object, None]) -> None:
        """Finish a write; a cancellation ends only the waiting for it. Raises what it raises.

        ``key`` names what is written: a task that was cancelled here, and then writes the same, has written it.
        """
        caller = asyncio.current_task()
        if caller is not None and self._interrupted.pop(caller, None) == key:
            write.close()
            return
        task = asyncio.create_task(write)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if caller is not None and not task.cancelled():
                self._interrupted[caller] = key
            task.add_done_callback(_log_failure)
            raise

    async def wait(self) -> None:
        """Until all of them are finished."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("write_failed_after_cancellation", **failure(error))
