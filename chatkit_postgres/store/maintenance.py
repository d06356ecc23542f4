"""Periodic maintenance for all owners."""

import asyncio
import random

from chatkit_postgres.db import Database
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.sql import maintenance as sql

logger = get_logger(__name__)


async def run_maintenance(database: Database, *, stale_seconds: float) -> None:
    """Close the turns of processes that died and forget old idempotency keys, repeatedly, until cancelled."""
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(stale_seconds * random.uniform(0.25, 0.75))  # noqa: S311 - jitter is no secret
        try:
            (closed,) = await database.run_for_all_owners(sql.CLOSE_STALE_TURNS, stale_seconds=stale_seconds)
            if closed["count"]:
                logger.warning("interrupted_turns_closed", count=closed["count"])
            await database.run_for_all_owners(sql.DELETE_LOGS_OF_ENDED_TURNS)
            await database.run_for_all_owners(sql.FORGET_KEYS)
        except DatabaseUnavailable:
            continue
        except Exception as error:  # noqa: BLE001 - tried again in a moment
            log_failure(logger, "maintenance_failed", error)
            continue
