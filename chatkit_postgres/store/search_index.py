"""Indexes the rows that no statement has indexed: those from before there was a search, and text of unfinished messages
that a statement has joined."""

import asyncio
from collections.abc import Sequence

from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import rows
from chatkit_postgres.store.index_entries import entry_of, searchable_text
from chatkit_postgres.store.owners import SeveralOwners
from chatkit_postgres.store.sql import search as sql

PAUSE_SECONDS = 0.2
EVERY_SECONDS = 60
MAX_OF_SEARCH = 10
"""Batches that a search indexes before it looks; with more rows than that, the rest is left to the background."""

logger = get_logger(__name__)


class SearchIndex:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._several = SeveralOwners(database)

    async def catch_up(self, owner: str) -> None:
        """Index the rows of an owner who searches."""
        for _ in range(MAX_OF_SEARCH):
            found = await self._database.run(owner, sql.LIST_UNINDEXED)
            if not found:
                return
            documents = rows.dump_json(await _documents(found))
            (done,) = await self._database.run(owner, sql.INDEX_OWN_ROWS, rows=documents)
            if not done["count"]:
                return

    async def fill(self) -> int:
        """Index the rows of all owners, in batches. Returns how many there were."""
        count, message_of, title_of = 0, "", ""
        while found := await self._database.run_for_all_owners(
            sql.LIST_ALL_UNINDEXED, from_message=message_of, from_title=title_of
        ):
            # Those of earlier owners are dead entries of the index by now.
            message_of = next((row["user_id"] for row in found if row["message_id"] is not None), message_of)
            title_of = next((row["user_id"] for row in found if row["message_id"] is None), title_of)
            indexed = await self.index(found)
            count += indexed
            if not indexed:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return count

    async def run(self) -> None:
        """Fill the index repeatedly, until cancelled."""
        while True:
            try:
                if count := await self.fill():
                    logger.info("search_index_filled", count=count)
            except DatabaseUnavailable:
                pass
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                log_failure(logger, "search_index_failed", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def index(self, found: Sequence[Row]) -> int:
        """Index rows that a statement has listed. Returns how many: not those that were written meanwhile, nor those
        that are being written."""
        done = await self._several.run(sql.INDEX_ROWS, sql.INDEX_ROWS_OF_OWNER, {"rows": await _documents(found)})
        return sum(row["count"] for row in done.rows)


async def _documents(found: Sequence[Row]) -> list[dict[str, object]]:
    documents = []
    for number, row in enumerate(found):
        text = row["seen"] or ""
        if row["message_id"] is not None:
            text = searchable_text(rows.load_item(row, ""))
        documents.append(
            {
                "user_id": row["user_id"],
                "session_id": str(row["session_id"]),
                "message_id": str(row["message_id"]) if row["message_id"] is not None else None,
                "seen": row["seen"],
                **entry_of(row["user_id"], text),
            }
        )
        if number % 20 == 0:
            # Long texts take milliseconds, in which a turn would wait.
            await asyncio.sleep(0)
    return documents
