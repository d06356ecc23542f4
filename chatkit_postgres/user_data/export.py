"""Exports all data of a user, in pages: no statement is open while the reader of the export is slow."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Any

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store.sql import user_data as sql
from chatkit_postgres.user_data.archive import DATA, ENDINGS, HEADER, Outbox, line_of, new_archive, new_entry


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
    key: str


class Export:
    def __init__(self, database: Database, storage: Storage, owner: str) -> None:
        self._database = database
        self._storage = storage
        self._owner = owner

    async def extent(self) -> Extent | None:
        """None if there is no such user."""
        (counted,) = await self._database.run(self._owner, sql.COUNT_EXPORTED)
        user = await self._database.run(self._owner, sql.LISTS["user"], after=None)
        return Extent(counted["items"], counted["bytes"]) if user else None

    async def pieces(self) -> AsyncIterator[Progress]:
        """The bytes of the ZIP file, as they are made."""
        outbox = Outbox()
        archive = new_archive(outbox)
        files: list[_File] = []
        with new_entry(archive, DATA) as lines:
            lines.write(line_of(HEADER | {"user": self._owner}))
            for table in sql.TABLES:
                async for count in self._records(table, lines, files):
                    yield Progress(outbox.take(), items=count if table.record == "item" else 0)
        for file in files:
            for ending in ENDINGS:
                async for count in self._bytes(file, ending, lambda name: new_entry(archive, name)):
                    yield Progress(outbox.take(), file_bytes=count)
        archive.close()
        yield Progress(outbox.take())

    async def _records(self, table: sql.ExportedTable, lines: IO[bytes], files: list[_File]) -> AsyncIterator[int]:
        """Write the records of a table. Yields the number of each page's."""
        after: str | None = None
        while page := await self._database.run(self._owner, sql.LISTS[table.record], after=after):
            written = []
            for row in page:
                record: str = row["record"]
                if row["storage_key"] is not None:
                    name = f"files/{len(files) + 1:06d}"
                    digest = json.loads(record)["sha256"]
                    files.append(_File(name, f"{row['storage_key']}/{digest}"))
                    record = f'{record[:-1]},"file":"{name}"}}'
                written.append(line_of(record, table.record))
            await asyncio.to_thread(lines.write, b"".join(written))
            yield len(page)
            if not table.key:
                return
            last = json.loads(page[-1]["record"])
            after = json.dumps({name: last[name] for name in table.key})

    async def _bytes(self, file: _File, ending: str, entry: Any) -> AsyncIterator[int]:
        """Write a file, or what was made of it, if there is such a thing. Yields the number of each piece's bytes."""
        try:
            _, chunks = await self._storage.open(file.key + ending)
        except NotFound:
            return
        with entry(file.name + ending) as written:
            async for chunk in chunks:
                await asyncio.to_thread(written.write, chunk)
                yield len(chunk)
