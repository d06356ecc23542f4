"""Exports all data of a user, in pages: no statement is open while the reader of the export is slow."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import IO
from zipfile import ZipFile

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import NotFound
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store.sql import user_data as sql
from chatkit_postgres.store.sql.exported_tables import TABLES, ExportedTable
from chatkit_postgres.user_data.archive import DATA, ENDINGS, HEADER, Outbox, line_of, new_archive, new_entry

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Extent:
    """About how much there is."""

    items: int
    bytes: int
    """Of files."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was written last."""

    data: bytes
    items: int = 0
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    """In the archive."""
    key: str
    """In the storage."""
    title: str
    """The attachment's."""


class Export:
    def __init__(self, database: Database, storage: Storage, owner: str, *, with_hidden: bool) -> None:
        """``with_hidden``: for an operator, also what no client receives: hidden items, metadata of threads, and the
        states of runs that wait."""
        self._database = database
        self._storage = storage
        self._owner = owner
        self._with_hidden = with_hidden
        self._sessions: set[str] = set()
        self.missing: list[str] = []
        """Names of files whose bytes are not in the storage."""

    async def extent(self) -> Extent | None:
        """None if there is no such user."""
        (counted,) = await self._database.run(self._owner, sql.COUNT_EXPORTED)
        return Extent(counted["items"], counted["bytes"]) if counted["is_known"] else None

    async def pieces(self) -> AsyncIterator[Progress]:
        """The bytes of the ZIP file, as they are made."""
        outbox = Outbox()
        archive = new_archive(outbox)
        files: list[_File] = []
        with new_entry(archive, DATA) as lines:
            lines.write(line_of(HEADER | {"user": self._owner}))
            for table in TABLES:
                async for count in self._records(table, lines, files):
                    yield Progress(outbox.take(), items=count if table.record == "item" else 0)
        for file in files:
            for ending in ENDINGS:
                async for count in self._bytes(file, ending, archive):
                    yield Progress(outbox.take(), file_bytes=count)
        archive.close()
        if self.missing:
            logger.error("exported_without_files", count=len(self.missing))
        yield Progress(outbox.take())

    async def _records(self, table: ExportedTable, lines: IO[bytes], files: list[_File]) -> AsyncIterator[int]:
        """Write the records of a table. Yields the number of each page's."""
        after: str | None = None
        while page := await self._page(table.record, after):
            written = []
            for row in page:
                record: str = row["record"]
                if table.record == "thread":
                    self._sessions.add(json.loads(record)["session_id"])
                elif not self._has_thread(table, record):
                    continue
                if row["storage_key"] is not None:
                    name, attachment = f"files/{len(files) + 1:06d}", json.loads(record)
                    key = f"{row['storage_key']}/{attachment['sha256']}"
                    files.append(_File(name, key, str(attachment["attachment"].get("name"))))
                    record = f'{record[:-1]},"file":"{name}"}}'
                written.append(line_of(record, table.record))
            await asyncio.to_thread(lines.write, b"".join(written))
            yield len(page)
            if not table.key:
                return
            last = json.loads(page[-1]["record"])
            after = json.dumps({name: last[name] for name in table.key})

    async def _page(self, kind: str, after: str | None) -> Sequence[Row]:
        return await self._database.run(self._owner, sql.LISTS[kind], after=after, with_hidden=self._with_hidden)

    def _has_thread(self, table: ExportedTable, record: str) -> bool:
        """Not if it was begun after the threads had been read."""
        return table.parent == "true" or json.loads(record)["session_id"] in self._sessions

    async def _bytes(self, file: _File, ending: str, archive: ZipFile) -> AsyncIterator[int]:
        """Write a file, or what was made of it, if there is such a thing. Yields the number of each piece's bytes."""
        try:
            _, chunks = await self._storage.open(file.key + ending)
        except NotFound:
            if not ending:
                self.missing.append(file.title)
            return
        with new_entry(archive, file.name + ending) as written:
            async for chunk in chunks:
                await asyncio.to_thread(written.write, chunk)
                yield len(chunk)
