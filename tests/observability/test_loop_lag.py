"""How late the event loop is, as the metrics and the pace of streams learn it."""

import asyncio
import time

from chatkit_postgres.observability.loop_lag import PERIOD_SECONDS, watch_loop_lag
from chatkit_postgres.observability.metrics import Metrics


async def test_a_loop_that_is_held_up_is_measured() -> None:
    metrics, seen = Metrics(), list[float]()
    watching = asyncio.create_task(watch_loop_lag(metrics.loop_lag.observe, seen.append))
    await asyncio.sleep(0)
    time.sleep(PERIOD_SECONDS + 0.3)  # noqa: ASYNC251 - as code does that does not let the loop run
    await asyncio.sleep(PERIOD_SECONDS + 0.1)
    watching.cancel()
    assert max(seen) >= 0.3
    assert 'chatkit_event_loop_lag_seconds_bucket{le="0.25"}' in metrics.exposition().decode()
