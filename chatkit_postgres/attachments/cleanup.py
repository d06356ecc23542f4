"""Removes the bytes of deleted attachments, then their rows, and abandoned uploads.

The process can be killed at any point and the next run finds the rest: a row is deleted last, and only when no upload
can still write to its storage key.
"""

import asyncio
import random

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.db import Database
from chatkit_postgres.errors import DatabaseUnavailable, StorageUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store.sql import maintenance as sql

UNSENT_SECONDS = 24 * 3600
"""How long a file is stored that was uploaded and not sent with a message."""
LATE_SECONDS = 3600
"""Longer than any upload can take: after that, no upload writes to the storage key."""

MAX_FAILURES = 3

logger = get_logger(__name__)


async def clean_up(database: Database, storage: Storage, metrics: Metrics) -> int:
    """Run the clean-up once, and return the number of attachments whose bytes or rows were removed. Raises
    StorageUnavailable."""
    await database.run_for_all_owners(sql.MARK_ABANDONED, late_seconds=LATE_SECONDS, unsent_seconds=UNSENT_SECONDS)
    found = await database.run_for_all_owners(sql.LIST_DELETED_ATTACHMENTS, late_seconds=LATE_SECONDS)
    removed = failed = 0
    for row in found:
        try:
            if row["storage_key"] is not None:
                await storage.remove_all(row["storage_key"])
        except StorageUnavailable:
            # A single failure is logged and skipped; three in a row mean that the storage is unavailable.
            logger.warning("bytes_not_removed", attachment_id=row["attachment_id"], storage_key=row["storage_key"])
            failed += 1
            if failed >= MAX_FAILURES:
                raise
            continue
        failed = 0
        statement = sql.REMOVE_ATTACHMENT if row["is_settled"] else sql.NOTE_BYTES_REMOVED
        await database.run(row["user_id"], statement, attachment_id=row["attachment_id"])
        removed += 1
        metrics.attachments_removed.inc()
    metrics.clean_up.set_to_current_time()
    return removed


async def run_attachment_cleanup(
    database: Database, storage: Storage, metrics: Metrics, *, every_seconds: float
) -> None:
    """Run the clean-up periodically until cancelled. Several replicas can run it at once."""
    while True:
        await asyncio.sleep(every_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
        try:
            while await clean_up(database, storage, metrics) == sql.MAX_AT_ONCE:
                pass
        except (DatabaseUnavailable, StorageUnavailable):
            continue
        except Exception as error:  # noqa: BLE001 - the next round tries again
            log_failure(logger, "clean_up_failed", error)
