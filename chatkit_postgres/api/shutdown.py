"""Starts the drain when the signal arrives.

uvicorn waits for open streams before it runs the application's own shutdown, so that would be too late. The handler
that is found at start-up (uvicorn's, or anybody's) is called when the drain is over; a second signal calls it at once.
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
    """SIGTERM drains for so long; SIGINT, somebody at a keyboard, stops and saves at once."""
    if threading.current_thread() is not threading.main_thread():
        # No signals arrive here; whoever embeds the application runs its lifespan.
        yield
        return
    draining = _Draining(drain, {signal.SIGTERM: seconds, signal.SIGINT: 0.0})
    for sign in SIGNALS:
        signal.signal(sign, draining.handle)
    try:
        yield
    finally:
        draining.give_back()


class _Draining:
    def __init__(self, drain: Drain, seconds: dict[signal.Signals, float]) -> None:
        self._drain = drain
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._found = {sign: signal.getsignal(sign) for sign in SIGNALS}
        self._task: asyncio.Task[None] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, signal.Signals(number), frame)

    def give_back(self) -> None:
        for sign, handler in self._found.items():
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
        handler = self._found[sign]
        if callable(handler):
            handler(sign, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(sign, signal.SIG_DFL)
            signal.raise_signal(sign)
