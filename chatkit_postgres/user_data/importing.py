"""Imports the data of a user. What is there already stays as it is, so an import can be repeated, and goes on where it
was interrupted."""

import asyncio
import io
import json
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any
from uuid import UUID

import asyncpg
from chatkit.types import ThreadItem
from pydantic import TypeAdapter, ValidationError

from chatkit_postgres.attachments.intake import disposition_of
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import rows
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.index_entries import entry_of, searchable_text
from chatkit_postgres.store.sql import user_data as sql
from chatkit_postgres.user_data.archive import ENDINGS, HEADER, ArchiveReader, BadArchiveError

BATCH = 200
BATCH_BYTES = 4_000_000
SPOOLED_BYTES = 8 * 1024 * 1024

_items: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


@dataclass
class Report:
    imported: Counter[str] = field(default_factory=Counter)
    """By the type of the records."""
    known: Counter[str] = field(default_factory=Counter)
    """Records that were there already, or whose thread is not here."""
    missing_files: list[str] = field(default_factory=list)
    """Names of attachments without their bytes in the export."""


class Import:
    def __init__(self, database: Database, storage: Storage, owner: str) -> None:
        self._database = database
        self._storage = storage
        self._owner = owner
        self._positions = Counter[str]()
        self.report = Report()

    async def run(self, archive: ArchiveReader) -> AsyncIterator[int]:
        """Yields the bytes of records that were read so far. Raises BadArchiveError, DatabaseUnavailable,
        StorageUnavailable; what was imported until then stays."""
        batch: list[dict[str, Any]] = []
        kind, size, before, read = "", 0, 0, 0
        has_user = False
        for number, record, read in archive.records():
            with _named(number):
                record_kind = record.pop("type")
                if number == 1 and record_kind == HEADER["type"]:
                    _check_header(record)
                    continue
                if record_kind not in sql.INSERTS:
                    raise ValueError(f"there is no record of the type {record_kind!r}")
                if not has_user and record_kind != "user":
                    # JSON Lines of others name no user.
                    await self._insert("user", [{"created_at": datetime.now(UTC).isoformat(), "metadata": {}}])
                has_user = True
                if batch and (record_kind != kind or len(batch) >= BATCH or size >= BATCH_BYTES):
                    await self._insert(kind, batch)
                    yield before
                    batch, size = [], 0
                kind, size, before = record_kind, size + read - before, read
                if record_kind == "attachment" and "file" in record:
                    await self._take_file(archive, record)
                else:
                    batch.append(self._row(record_kind, record))
        await self._insert(kind, batch)
        yield read

    async def _insert(self, kind: str, batch: list[dict[str, Any]]) -> None:
        if not batch:
            return
        given = rows.storable_json(json.dumps(batch))
        try:
            done = await self._database.run(
                self._owner, sql.INSERTS[kind], rows=given, owner_mark=entry_of(self._owner, "")["owner_mark"]
            )
        except asyncpg.DataError as error:
            raise BadArchiveError(f"a record of the type {kind} has a value that does not fit: {error}.") from None
        except asyncpg.IntegrityConstraintViolationError as error:
            raise BadArchiveError(f"a record of the type {kind} is incomplete or not allowed: {error}.") from None
        new = sum(row["is_new"] for row in done)
        self.report.imported[kind] += new
        self.report.known[kind] += len(batch) - new

    def _row(self, kind: str, record: dict[str, Any]) -> dict[str, Any]:
        """The row of a record; what a record of ours always has is added to one that others have written. Raises
        ValueError or KeyError."""
        if "session_id" not in record and "thread_id" in record:
            record["session_id"] = str(session_uuid(record["thread_id"]))
        match kind:
            case "thread":
                return _thread_row(record)
            case "item":
                return self._item_row(record)
            case "attachment":
                return {"state": "pending", "created_at": record["created_at"]} | record
            case _:
                return record

    def _item_row(self, record: dict[str, Any]) -> dict[str, Any]:
        if "item_id" not in record:
            made = _items.validate_python({"thread_id": record.get("thread_id")} | record["item"])
            row, session_id = rows.item_row(made), UUID(record["session_id"])
            self._positions[record["session_id"]] += 1
            created_at = made.created_at.astimezone().isoformat()
            record |= {
                "item": json.loads(row.item),
                "item_id": row.item_id,
                "message_id": str(message_uuid(session_id, row.item_id)),
                "item_type": row.item_type,
                "sender_type": row.sender_type,
                "content": row.content,
                "is_partial": False,
            }
            record = {"position": self._positions[record["session_id"]], "created_at": created_at} | record
        text = searchable_text(rows.load_item({"item": json.dumps(record["item"]), "item_id": record["item_id"]}, ""))
        return record | {"words": entry_of(self._owner, text)["words"]}

    async def _take_file(self, archive: ArchiveReader, record: dict[str, Any]) -> None:
        """The row with its storage key first, so that bytes without a row are never left."""
        name = record.pop("file")
        if not archive.has(name):
            self.report.missing_files.append(str(record["attachment"].get("name")))
            return
        key = f"{secrets.token_hex(1)}/{secrets.token_hex(16)}"
        announced = await self._database.run(
            self._owner,
            sql.ANNOUNCE_FILE,
            attachment_id=record["attachment_id"],
            attachment=rows.storable_json(json.dumps(record["attachment"])),
            storage_key=key,
        )
        if not announced:
            self.report.known["attachment"] += 1
            return
        place = f"{announced[0]['storage_key']}/{record['sha256']}"
        for ending in ENDINGS:
            if archive.has(name + ending):
                await self._store_bytes(archive.open(name + ending), place + ending, record, is_content=not ending)
        row = rows.storable_json(json.dumps(record))
        if not await self._database.run(self._owner, sql.FINISH_FILE, attachment_id=record["attachment_id"], row=row):
            raise NotFound
        self.report.imported["attachment"] += 1

    async def _store_bytes(self, source: IO[bytes], place: str, record: Mapping[str, Any], *, is_content: bool) -> None:
        content_type = str(record["content_type"]) if is_content else "application/octet-stream"
        disposition = disposition_of(str(record["attachment"]["name"]), content_type) if is_content else "attachment"
        with source, tempfile.SpooledTemporaryFile(max_size=SPOOLED_BYTES) as spooled:
            while piece := await asyncio.to_thread(source.read, io.DEFAULT_BUFFER_SIZE * 16):
                spooled.write(piece)
            spooled.seek(0)
            file: Any = spooled
            await self._storage.put(place, file, content_type=content_type, disposition=disposition)


def _thread_row(record: dict[str, Any]) -> dict[str, Any]:
    created_at = record["created_at"]
    whole: dict[str, Any] = {
        "status": {"type": "active"},
        "metadata": {},
        "updated_at": created_at,
        "next_position": 1,
    } | record
    return whole | {"words": entry_of("", whole.get("title") or "")["words"]}


def _check_header(record: Mapping[str, Any]) -> None:
    if record.get("format") != HEADER["format"]:
        raise ValueError("this is no export of chatkit-postgres")
    if record.get("version") != HEADER["version"]:
        raise ValueError(f"version {record.get('version')} of the format is not known here; update chatkit-postgres")


class _named:  # noqa: N801 - used as a function
    """Turns what is wrong with a record into a BadArchiveError with its line."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyError):
            raise BadArchiveError(f"line {self._number}: {error.args[0]} is missing.") from None
        if isinstance(error, ValidationError):
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise BadArchiveError(f"line {self._number}: {where}: {problem['msg']}.") from None
        if isinstance(error, ValueError | TypeError | AttributeError):
            raise BadArchiveError(f"line {self._number}: {error}.") from None
