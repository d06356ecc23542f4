"""Finishes writes whose callers are cancelled.

A server that notices a disconnected client cancels the stream again at every await; without this, a stock
``ChatKitServer`` could never commit what it saves in ``handle_stream_cancelled``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from chatkit_postgres.observability.logs import failure, get_logger

T = TypeVar("T")

logger = get_logger(__name__)


class DetachedWrites(Generic[T]):
    """``T`` describes a write."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._interrupted: WeakKeyDictionary[asyncio.Task[object], tuple[T, asyncio.Task[None]]] = WeakKeyDictionary()

    async def run(self, subject: T, write: Callable[[T | None], Coroutine[object, object, None]]) -> None:
        """Run a write to its end, even if the caller is cancelled. Raises the write's errors.

        If the caller's previous write was interrupted by a cancellation and committed, its subject is passed to
        ``write``.
        """
        caller = asyncio.current_task()
        before = self._interrupted.pop(caller, None) if caller is not None else None
        task = asyncio.create_task(self._write_after(before, write))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if caller is not None and not task.cancelled():
                self._interrupted[caller] = subject, task
            task.add_done_callback(_log_failure)
            raise

    @staticmethod
    async def _write_after(
        before: tuple[T, asyncio.Task[None]] | None, write: Callable[[T | None], Coroutine[object, object, None]]
    ) -> None:
        if before is None:
            await write(None)
            return
        subject, task = before
        await asyncio.wait({task})
        is_written = not task.cancelled() and task.exception() is None
        await write(subject if is_written else None)

    def forget(self) -> None:
        """Discard the caller's interrupted write: the next write is unrelated."""
        caller = asyncio.current_task()
        if caller is not None:
            self._interrupted.pop(caller, None)

    async def wait(self) -> None:
        """Wait until all writes are finished."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("write_failed_after_cancellation", **failure(error))
