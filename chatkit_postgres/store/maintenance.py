"""Periodic maintenance for all owners."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from chatkit_postgres.db import BACKGROUND, Database, Row, wait_policy
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import turns
from chatkit_postgres.store.sql import limits
from chatkit_postgres.store.sql import maintenance as sql

MIN_SECONDS_OF_A_HOLD = 90
"""As long as a turn may take to be opened: it waits 30 seconds for a connection, for each of its first statements."""

logger = get_logger(__name__)


MAX_LOGGED = 50
"""Ids of turns in one line."""


async def run_maintenance(
    database: Database, *, stale_seconds: float, on_closed: Callable[[str], object] = lambda _: None
) -> None:
    """Close the turns of processes that died, and forget what is no longer needed, repeatedly, until cancelled.
    ``on_closed`` is called with the operation of each turn that was closed."""
    wait_policy.set(BACKGROUND)
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(stale_seconds * random.uniform(0.25, 0.75))  # noqa: S311 - jitter is no secret
        await _step(close_stale_turns(database, stale_seconds, on_closed))
        await _step(release_dead_holds(database, stale_seconds))
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


async def close_stale_turns(
    database: Database, stale_seconds: float, on_closed: Callable[[str], object] = lambda _: None
) -> int:
    """Close the turns of processes that died, and return how many."""
    total = 0
    while True:
        stale = await database.run_for_all_owners(sql.LIST_STALE_TURNS, stale_seconds=stale_seconds)
        closed: list[turns.ClosedTurn] = []
        for row in _shuffled(stale):
            closed += await turns.close_stale_turns(database, row["user_id"], row["session_id"], stale_seconds)
        for turn in closed:
            on_closed(turn.operation)
        if closed:
            ids = [str(turn.turn_id) for turn in closed[:MAX_LOGGED]]
            logger.warning("interrupted_turns_closed", count=len(closed), turn_ids=ids)
        total += len(closed)
        if len(stale) < sql.MAX_AT_ONCE or not closed:
            return total


def _shuffled(found: Sequence[Row]) -> list[Row]:
    """Other processes do the same at the same time, and should not wait for each other at each row."""
    return random.sample(list(found), len(found))


async def release_dead_holds(database: Database, stale_seconds: float) -> None:
    """Release what is held for turns that were never opened, or have ended."""
    while True:
        stale = max(stale_seconds, MIN_SECONDS_OF_A_HOLD)
        dead = await database.run_for_all_owners(limits.LIST_DEAD_HOLDS, stale_seconds=stale)
        for row in _shuffled(dead):
            await database.run(row["user_id"], limits.RELEASE_TURN, hold=row["hold"])
        if dead:
            logger.warning("dead_holds_released", count=len(dead))
        if len(dead) < limits.MAX_AT_ONCE:
            return


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
