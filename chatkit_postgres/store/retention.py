"""Deletes threads whose newest item is older than the retention, in the background, a few at a time."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chatkit_postgres.db import Database
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.sql import retention as sql
from chatkit_postgres.store.sql.threads import DELETE_THREAD, LOCK_THREAD

EVERY_SECONDS = 3600
PAUSE_SECONDS = 0.05
"""After each thread, and each page."""

logger = get_logger(__name__)


@dataclass(frozen=True)
class Retention:
    days: int
    keeps_locked: bool = True
    """Whether locked and closed threads stay."""


async def run_retention(database: Database, retention: Retention, on_deleted: Callable[[], object]) -> None:
    """Delete old threads each hour, until cancelled. Several processes can do it at once."""
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.01, 0.1))  # noqa: S311 - jitter is no secret
        try:
            if count := await delete_old_threads(database, retention, on_deleted):
                logger.info("old_threads_deleted", count=count)
        except DatabaseUnavailable:
            pass
        except Exception as error:  # noqa: BLE001 - the next round tries again
            log_failure(logger, "retention_failed", error)
        await asyncio.sleep(EVERY_SECONDS * 0.9)


async def delete_old_threads(
    database: Database, retention: Retention, on_deleted: Callable[[], object] = lambda: None
) -> int:
    """Return how many were deleted. Their files follow by the clean-up of attachments; the ledger keeps their turns."""
    (found,) = await database.run_for_all_owners(sql.FIND_CUTOFF, days=retention.days)
    wanted = {"before": found["cutoff"], "locked": not retention.keeps_locked}
    place = {"after_user": "", "after_time": datetime.min.replace(tzinfo=UTC), "after_session": UUID(int=0)}
    count = 0
    while page := await database.run_for_all_owners(sql.LIST_THREADS, **wanted, **place):
        for row in page:
            if row["is_old"] and await _delete(database, row["user_id"], row["session_id"], wanted):
                on_deleted()
                count += 1
                await asyncio.sleep(PAUSE_SECONDS)
        last = page[-1]
        place = {
            "after_user": last["user_id"],
            "after_time": last["created_at"],
            "after_session": last["session_id"],
        }
        await asyncio.sleep(PAUSE_SECONDS)
    return count


async def _delete(database: Database, owner: str, session: UUID, wanted: dict[str, Any]) -> bool:
    async def work(transaction: Transaction) -> bool:
        await transaction.run(owner, LOCK_THREAD, session=session)
        if not await transaction.run(owner, sql.FIND_OLD_THREAD, session=session, **wanted):
            return False
        # In batches, because a thread may have thousands, and a statement should be short.
        while len(await transaction.run(owner, sql.DELETE_OLD_MESSAGES, session=session)) == sql.BATCH:
            pass
        return bool(await transaction.run(owner, DELETE_THREAD, session=session))

    return await database.run_transaction("delete_old_thread", work)
