"""Removes the bytes of deleted attachments, then their rows, and uploads that came to nothing.

In every order in which it can be killed, what is left is found again: a row goes last, and only when nothing can be on
its way to its place any more.
"""

import asyncio
import random

from app.attachments.storage import Storage
from app.db import Database
from app.db import maintenance as sql
from app.errors import DatabaseUnavailable, StorageUnavailable
from app.observability.logs import failure, get_logger

UNSENT_SECONDS = 24 * 3600
"""A file that was uploaded and not sent with a message is kept for so long."""
LATE_SECONDS = 3600
"""Longer than any upload can take: after that nobody writes there any more."""

logger = get_logger(__name__)


async def clean_up(database: Database, storage: Storage) -> int:
    """Once. How many attachments lost their bytes or their rows."""
    await database.run_for_all_owners(sql.MARK_ABANDONED, late_seconds=LATE_SECONDS, unsent_seconds=UNSENT_SECONDS)
    found = await database.run_for_all_owners(sql.LIST_DELETED_ATTACHMENTS, late_seconds=LATE_SECONDS)
    for row in found:
        if row["storage_key"] is not None:
            await storage.remove_all(row["storage_key"])
        statement = sql.REMOVE_ATTACHMENT if row["is_settled"] else sql.NOTE_BYTES_REMOVED
        await database.run(row["user_id"], statement, attachment_id=row["attachment_id"])
    return len(found)


async def clean_up_for_ever(database: Database, storage: Storage, *, every_seconds: float) -> None:
    """Again and again, until cancelled. Several replicas may do it at once."""
    while True:
        await asyncio.sleep(every_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
        try:
            while await clean_up(database, storage) == sql.MOST_AT_ONCE:
                pass
        except (DatabaseUnavailable, StorageUnavailable):
            continue
        except Exception as error:  # noqa: BLE001 - tried again in a moment
            logger.error("clean_up_failed", **failure(error))  # noqa: TRY400 - see failure()
