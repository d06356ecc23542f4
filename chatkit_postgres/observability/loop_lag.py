"""Measures how late the event loop runs what is due."""

import asyncio
import time
from collections.abc import Callable

PERIOD_SECONDS = 0.25


async def watch_loop_lag(*observers: Callable[[float], object]) -> None:
    """Call the observers with the lag in seconds, four times a second, until cancelled."""
    while True:
        due = time.monotonic() + PERIOD_SECONDS
        await asyncio.sleep(PERIOD_SECONDS)
        lag = max(0.0, time.monotonic() - due)
        for observe in observers:
            observe(lag)
