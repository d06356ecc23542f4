"""Measures how late the event loop runs what is due."""

import asyncio
import time
from collections.abc import Callable

from chatkit_postgres.observability.logs import get_logger

PERIOD_SECONDS = 0.25
BLOCKED_SECONDS = 1.0
"""Of lag, which is logged: so long no other answer went on."""

logger = get_logger(__name__)


async def watch_loop_lag(*observers: Callable[[float], object]) -> None:
    """Call the observers with the lag in seconds, four times a second, until cancelled."""
    while True:
        due = time.monotonic() + PERIOD_SECONDS
        await asyncio.sleep(PERIOD_SECONDS)
        lag = max(0.0, time.monotonic() - due)
        if lag > BLOCKED_SECONDS:
            cure = "code that waits or computes without await belongs into asyncio.to_thread"
            logger.warning("event_loop_blocked", seconds=round(lag, 1), cure=cure)
        for observe in observers:
            observe(lag)
