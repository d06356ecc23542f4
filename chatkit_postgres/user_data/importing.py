"""Imports the data of a user. What is there already stays as it is, so an import can be repeated, and goes on where it
was interrupted. An archive is trusted: it may say what tools have answered, and what waits for an approval."""

import asyncio
import hashlib
import json
import lzma
import secrets
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
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
from chatkit_postgres.store import rows
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.index_entries import entry_of, searchable_text
from chatkit_postgres.store.sql import user_data as sql
from chatkit_postgres.store.words import owner_lexeme
from chatkit_postgres.user_data.archive import ENDINGS, HEADER, BadArchiveError, Records

BATCH = 200
BATCH_BYTES = 4_000_000
SPOOLED_BYTES = 8 * 1024 * 1024
SLICE_BYTES = 256 * 1024
MAX_POSITION = 2**53

_items: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


@dataclass
class Report:
    imported: Counter[str] = field(default_factory=Counter)
    """By the type of the records."""
    known: Counter[str] = field(default_factory=Counter)
    """Those that were there already."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Those whose thread is not here, or whose position the thread has given to another item."""
    missing_files: list[str] = field(default_factory=list)
    """Names of attachments without their bytes in the export."""


class Import:
    def __init__(self, database: Database, storage: Storage, owner: str) -> None:
        self._database = database
        self._storage = storage
        self._owner = owner
        self._positions: dict[str, int] = {}
        """Session to the position of the next item that has none."""
        self.report = Report()

    async def run(self, archive: Records) -> AsyncIterator[int]:
        """Yields the bytes of records that were read so far. Raises BadArchiveError, DatabaseUnavailable,
        StorageUnavailable; what comes before a bad line is imported."""
        batch = _Batch()
        has_user = False
        try:
            for number, record, read in archive.records():
                with _described(f"line {number}"):
                    kind = str(record.pop("type"))
                    if number == 1 and kind == HEADER["type"]:
                        _check_header(record)
                        continue
                    if kind not in sql.INSERTS:
                        raise ValueError(f"there is no record of the type {kind!r}")
                    if not has_user and kind != "user":
                        # JSON Lines of others name no user.
                        now = datetime.now(UTC).isoformat()
                        await self._insert(_Batch("user", [{"created_at": now, "metadata": {}}], number, number))
                    has_user = True
                    if batch.is_full_for(kind):
                        full, batch = batch, _Batch()
                        await self._insert(full)
                        yield read
                    if kind == "attachment" and "file" in record:
                        await self._take_file(archive, record)
                    else:
                        batch.add(kind, await self._row(kind, record), number, read)
        except BadArchiveError:
            await self._insert(batch)
            raise
        await self._insert(batch)
        yield archive.size

    async def _insert(self, batch: "_Batch") -> None:
        if not batch.rows:
            return
        with _described(batch.lines):
            (done,) = await self._database.run(
                self._owner,
                sql.INSERTS[batch.kind],
                rows=rows.storable_json(json.dumps(batch.rows)),
                owner_mark=owner_lexeme(self._owner),
            )
        self.report.imported[batch.kind] += done["new"]
        self.report.known[batch.kind] += done["known"]
        self.report.left_out[batch.kind] += len(batch.rows) - done["new"] - done["known"]

    async def _row(self, kind: str, record: dict[str, Any]) -> dict[str, Any]:
        """The row of a record; what a record of ours always has is added to one that others have written. Raises
        ValueError or KeyError."""
        if "session_id" not in record and "thread_id" in record:
            record["session_id"] = str(session_uuid(record["thread_id"]))
        match kind:
            case "thread":
                return _thread_row(record)
            case "item":
                return await self._item_row(record)
            case "turn" if record["state"] == "running":
                # Nothing runs here.
                return record | {"state": "interrupted", "ended_at": record["heartbeat_at"]}
            case "attachment":
                return {"state": "pending", "created_at": record["created_at"]} | record
            case _:
                return record

    async def _item_row(self, record: dict[str, Any]) -> dict[str, Any]:
        if "item_id" not in record:
            record = await self._whole_item(record)
        if not 0 < record["position"] < MAX_POSITION:
            raise ValueError(f"position: {record['position']} is too large")
        text = searchable_text(rows.load_item({"item": json.dumps(record["item"]), "item_id": record["item_id"]}, ""))
        return record | {"words": entry_of(self._owner, text)["words"]}

    async def _whole_item(self, record: dict[str, Any]) -> dict[str, Any]:
        made = _items.validate_python({"thread_id": record.get("thread_id")} | record["item"])
        row, session_id = rows.item_row(made), UUID(record["session_id"])
        position = self._positions.get(record["session_id"])
        if position is None:
            found = await self._database.run(self._owner, sql.NEXT_POSITION, session=session_id)
            position = found[0]["next_position"] if found else 1
        self._positions[record["session_id"]] = position + 1
        return (
            {"position": position, "created_at": made.created_at.astimezone().isoformat()}
            | record
            | {
                "item": json.loads(row.item),
                "item_id": row.item_id,
                "message_id": str(message_uuid(session_id, row.item_id)),
                "item_type": row.item_type,
                "sender_type": row.sender_type,
                "content": row.content,
                "is_partial": False,
            }
        )

    async def _take_file(self, archive: Records, record: dict[str, Any]) -> None:
        """The row with its storage key first, so that bytes without a row are never left."""
        name, attachment_id = record.pop("file"), rows.storable(record["attachment_id"])
        if not archive.has(name):
            self.report.missing_files.append(str(record["attachment"].get("name")))
            return
        key = f"{secrets.token_hex(1)}/{secrets.token_hex(16)}"
        announced = await self._database.run(
            self._owner,
            sql.ANNOUNCE_FILE,
            attachment_id=attachment_id,
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
        row = rows.storable_json(json.dumps(record | {"state": "ready"}))
        # A row that is gone was deleted meanwhile, by its user.
        done = await self._database.run(self._owner, sql.FINISH_FILE, attachment_id=attachment_id, row=row)
        self.report.imported["attachment"] += len(done)

    async def _store_bytes(self, source: IO[bytes], place: str, record: Mapping[str, Any], *, is_content: bool) -> None:
        content_type = str(record["content_type"]) if is_content else "application/octet-stream"
        disposition = disposition_of(str(record["attachment"]["name"]), content_type) if is_content else "attachment"
        digest, size = hashlib.sha256(), 0
        with source, tempfile.SpooledTemporaryFile(max_size=SPOOLED_BYTES) as spooled:
            while data := await asyncio.to_thread(source.read, SLICE_BYTES):
                size += len(data)
                if is_content and size > record["stored_bytes"]:
                    break
                digest.update(data)
                spooled.write(data)
            if is_content and (digest.hexdigest(), size) != (record["sha256"], record["stored_bytes"]):
                raise ValueError("the bytes of the file are not those of the record (sha256, stored_bytes)")
            spooled.seek(0)
            file: Any = spooled
            await self._storage.put(place, file, content_type=content_type, disposition=disposition)


@dataclass
class _Batch:
    """Records of one type, one after the other."""

    kind: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    first: int = 0
    last: int = 0
    """Lines."""
    began: int = 0
    ends: int = 0
    """Bytes of the records that were read."""

    @property
    def lines(self) -> str:
        return f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"

    def is_full_for(self, kind: str) -> bool:
        """Whether a record of this type begins another batch."""
        is_large = len(self.rows) >= BATCH or self.ends - self.began >= BATCH_BYTES
        return bool(self.rows) and (kind != self.kind or is_large)

    def add(self, kind: str, row: dict[str, Any], number: int, read: int) -> None:
        if not self.rows:
            self.kind, self.first, self.began = kind, number, read
        self.rows.append(row)
        self.last, self.ends = number, read


def _thread_row(record: dict[str, Any]) -> dict[str, Any]:
    created_at = record["created_at"]
    whole: dict[str, Any] = {
        "status": {"type": "active"},
        "metadata": {},
        "updated_at": created_at,
        "next_position": 1,
    } | record
    if not 0 < whole["next_position"] < MAX_POSITION:
        raise ValueError(f"next_position: {whole['next_position']} is too large")
    return whole | {"words": entry_of("", whole.get("title") or "")["words"]}


def _check_header(record: Mapping[str, Any]) -> None:
    if record.get("format") != HEADER["format"]:
        raise ValueError("this is no export of chatkit-postgres")
    if record.get("version") != HEADER["version"]:
        raise ValueError(f"version {record.get('version')} of the format is not known here; update chatkit-postgres")


@contextmanager
def _described(lines: str) -> Iterator[None]:
    """Turn what is wrong with records into a BadArchiveError that names their lines."""
    try:
        yield
    except KeyError as error:
        problem = f"{error.args[0]} is missing"
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = str(error)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError) as error:
        problem = f"a file is damaged, or packed in another way than ours: {error}"
    except asyncpg.CardinalityViolationError:
        problem = "a thread is there twice"
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
        problem = f"a value does not fit: {error}"
    else:
        return
    raise BadArchiveError(f"{lines}: {problem}.")
