"""Periodic maintenance for all owners."""

import asyncio
import random
from collections.abc import Awaitable, Sequence

from chatkit_postgres.db import BACKGROUND, Database, Row, wait_policy
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.sql import maintenance as sql
from chatkit_postgres.store.sql import turns

logger = get_logger(__name__)


async def run_maintenance(database: Database, *, stale_seconds: float) -> None:
    """Close the turns of processes that died, and forget what is no longer needed, repeatedly, until cancelled."""
    wait_policy.set(BACKGROUND)
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(stale_seconds * random.uniform(0.25, 0.75))  # noqa: S311 - jitter is no secret
        await _step(close_stale_turns(database, stale_seconds))
        await _step(delete_logs_of_ended_turns(database))
        await _step(database.run_for_all_owners(sql.FORGET_KEYS))


async def _step(work: Awaitable[object]) -> None:
    """One that fails keeps the others from nothing; it is tried again in a moment."""
    try:
        await work
    except DatabaseUnavailable:
        return
    except Exception as error:  # noqa: BLE001 - logged, and tried again
        log_failure(logger, "maintenance_failed", error)


async def close_stale_turns(database: Database, stale_seconds: float) -> int:
    """Close the turns of processes that died, and return how many."""
    total = 0
    while True:
        stale = await database.run_for_all_owners(sql.LIST_STALE_TURNS, stale_seconds=stale_seconds)
        count = 0
        for row in _shuffled(stale):
            count += len(
                await database.run(
                    row["user_id"], turns.CLOSE_STALE_TURNS, session=row["session_id"], stale_seconds=stale_seconds
                )
            )
        if count:
            logger.warning("interrupted_turns_closed", count=count)
        total += count
        if len(stale) < sql.MAX_AT_ONCE or count == 0:
            return total


def _shuffled(found: Sequence[Row]) -> list[Row]:
    """Other processes do the same at the same time, and should not wait for each other at each row."""
    return random.sample(list(found), len(found))


async def delete_logs_of_ended_turns(database: Database) -> None:
    """Delete the logs that are left behind; what they have of a partial message is kept in it."""
    while True:
        ended = await database.run_for_all_owners(sql.LIST_LOGS_OF_ENDED_TURNS)
        for row in _shuffled(ended):
            await database.run(
                row["user_id"], sql.DELETE_LOG_OF_ENDED_TURN, session=row["session_id"], turn=row["turn_id"]
            )
        if len(ended) < sql.MAX_AT_ONCE:
            return
