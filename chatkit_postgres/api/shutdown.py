"""Starts the drain when a signal arrives.

The application's own shutdown would be too late, because uvicorn waits for open streams before it. The previous signal
handler (uvicorn's, or another) is called when the drain is over; a second signal calls that handler at once.
"""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Drain = Callable[[float], Awaitable[None]]
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def draining_on_signals(drain: Drain, *, seconds: float) -> Iterator[None]:
    """SIGTERM drains for up to ``seconds``; SIGINT, sent from a keyboard, saves and stops the turns at once."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can handle signals; the embedding program runs the lifespan.
        yield
        return
    draining = _Draining(drain, {signal.SIGTERM: seconds, signal.SIGINT: 0.0})
    for sign in SIGNALS:
        signal.signal(sign, draining.handle)
    try:
        yield
    finally:
        draining.restore()


class _Draining:
    def __init__(self, drain: Drain, seconds: dict[signal.Signals, float]) -> None:
        self._drain = drain
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._previous = {sign: signal.getsignal(sign) for sign in SIGNALS}
        self._task: asyncio.Task[None] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, signal.Signals(number), frame)

    def restore(self) -> None:
        for sign, handler in self._previous.items():
            if signal.getsignal(sign) == self.handle:
                signal.signal(sign, handler)

    def _begin(self, sign: signal.Signals, frame: FrameType | None) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._drain_and_pass_on(sign, frame))
        else:
            self._pass_on(sign, frame)

    async def _drain_and_pass_on(self, sign: signal.Signals, frame: FrameType | None) -> None:
        try:
            await self._drain(self._seconds[sign])
        finally:
            self._pass_on(sign, frame)

    def _pass_on(self, sign: signal.Signals, frame: FrameType | None) -> None:
        handler = self._previous[sign]
        if callable(handler):
            handler(sign, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(sign, signal.SIG_DFL)
            signal.raise_signal(sign)
