"""Periodic maintenance for all owners."""

import asyncio
import random
from collections.abc import Awaitable

from chatkit_postgres.db import Database
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.sql import maintenance as sql

logger = get_logger(__name__)


async def run_maintenance(database: Database, *, stale_seconds: float) -> None:
    """Close the turns of processes that died, and forget what is no longer needed, repeatedly, until cancelled."""
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(stale_seconds * random.uniform(0.25, 0.75))  # noqa: S311 - jitter is no secret
        await _step(_close_stale_turns(database, stale_seconds))
        await _step(_delete_logs_of_ended_turns(database))
        await _step(database.run_for_all_owners(sql.FORGET_KEYS))


async def _step(work: Awaitable[object]) -> None:
    """One that fails keeps the others from nothing; it is tried again in a moment."""
    try:
        await work
    except DatabaseUnavailable:
        return
    except Exception as error:  # noqa: BLE001 - logged, and tried again
        log_failure(logger, "maintenance_failed", error)


async def _close_stale_turns(database: Database, stale_seconds: float) -> None:
    count = sql.MAX_AT_ONCE
    while count == sql.MAX_AT_ONCE:
        (closed,) = await database.run_for_all_owners(sql.CLOSE_STALE_TURNS, stale_seconds=stale_seconds)
        count = closed["count"]
        if count:
            logger.warning("interrupted_turns_closed", count=count)


async def _delete_logs_of_ended_turns(database: Database) -> None:
    count = sql.MAX_AT_ONCE
    while count == sql.MAX_AT_ONCE:
        (ended,) = await database.run_for_all_owners(sql.DELETE_LOGS_OF_ENDED_TURNS)
        count = ended["count"]
