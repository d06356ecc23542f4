"""Erases users: rows, files and running turns; and again after a backup was restored that still has them.

A tombstone, in the database and in the storage of files, names an erased user by a keyed hash, which tells nobody who
it was. It is written first, so that an erasure that was interrupted is finished by the next one.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.db import Database, Row
from chatkit_postgres.db.users import DISABLE_USER
from chatkit_postgres.errors import NotSupported
from chatkit_postgres.store.sql import erasure as sql
from chatkit_postgres.store.sql.audit import FIND_NAMED, FORGET_NAMES
from chatkit_postgres.user_data.audit import ERASURE, Audit, Look
from chatkit_postgres.user_data.hashes import Hashes

TOMBSTONES = "erased"
"""The prefix of the tombstones in the storage."""
REFUSED_AFTER_SECONDS = 10
"""By then every process refuses a disabled user, and has stopped their turns (auth/disabled_users.py)."""
MAX_WAIT_SECONDS = 60
"""For turns that are still running: one of a process that died would keep the erasure waiting."""
POLL_SECONDS = 0.5
MAX_ROUNDS = 5
FOREVER = datetime.max.replace(tzinfo=UTC)


class StillWritingError(Exception):
    """The user's rows keep coming back."""


@dataclass
class Receipt:
    user_hash: str
    erased_at: datetime
    rows: Counter[str] = field(default_factory=Counter)
    """By table."""
    files: int = 0
    bytes: int = 0
    turns_ended: int = 0
    unnamed_entries: int = 0
    """Entries of the audit log that do not name the user any more."""
    seconds: float = 0

    def document(self, backup_days: int | None) -> dict[str, Any]:
        """The receipt as JSON."""
        until = (self.erased_at + timedelta(days=backup_days)).date().isoformat() if backup_days is not None else None
        return {
            "type": "erasure",
            "version": 1,
            "user_hash": self.user_hash,
            "erased_at": self.erased_at.isoformat(),
            "seconds": round(self.seconds, 1),
            "rows": {table: self.rows[table] for table in sorted(self.rows)},
            "files": self.files,
            "bytes": self.bytes,
            "turns_ended": self.turns_ended,
            "audit_entries_unnamed": self.unnamed_entries,
            "remains": {
                "backups": f"until {until}" if until else "as long as you keep those that were made before",
                "database": "dead rows until VACUUM has run, words without an owner in the search index until REINDEX",
                "log": "user ids in lines of the log, as long as you keep them",
            },
        }


class Erasure:
    def __init__(
        self,
        database: Database,
        storage: Storage,
        key: str,
        *,
        wait_seconds: float = REFUSED_AFTER_SECONDS,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        actor: str = "operator",
    ) -> None:
        """``key`` makes the hashes; with another one, earlier tombstones name nobody. ``actor``: who erases, for the
        audit log."""
        self._database = database
        self._storage = storage
        self._hashes = Hashes(key)
        self._audit = Audit(database, key)
        self._actor = actor
        self._wait_seconds = wait_seconds
        self._max_wait_seconds = max_wait_seconds

    async def is_known(self, owner: str) -> bool:
        return bool((await self._find(owner))["is_known"])

    async def erase(self, owner: str) -> Receipt:
        """Raises DatabaseUnavailable, StorageUnavailable, StillWritingError; the erasure can then be repeated."""
        started = time.monotonic()
        await self._audit.record(Look(self._actor, "command", ERASURE, owner))
        receipt = Receipt(self._hashes.of_user(owner), datetime.now(UTC))
        await self._put_tombstone(receipt)
        await self._database.run(owner, DISABLE_USER)
        receipt.turns_ended = await self._end_turns(owner)
        for _ in range(MAX_ROUNDS):
            await self._erase_rows(owner, receipt)
            if not await self.is_known(owner):
                receipt.seconds = time.monotonic() - started
                return receipt
        raise StillWritingError

    async def erase_again(self) -> AsyncIterator[Receipt]:
        """Erase all users whom a tombstone names and who are here since before it."""
        erased: dict[str, datetime] = {}
        async for key, erased_at in self._tombstones():
            erased[key] = max(erased_at, erased.get(key, erased_at))
        for key, erased_at in erased.items():
            # Names of staff are in the audit log alone; that of a user who is still here is removed below.
            if await self._database.run_for_all_owners(FIND_NAMED, user_hash=key, before=erased_at):
                await self._audit.record(Look(self._actor, "command", ERASURE, subject_hash=key))
                await self._forget_names(key, erased_at)
        after = ""
        while page := await self._database.run_for_all_owners(sql.LIST_NAMES, after=after):
            for row in page:
                buried_at = erased.get(self._hashes.of_user(row["user_id"]))
                # Who began anew after the erasure stays.
                if buried_at is not None and row["created_at"] < buried_at:
                    yield await self.erase(row["user_id"])
            after = page[-1]["user_id"]

    async def _end_turns(self, owner: str) -> int:
        """Wait until every process refuses the user and no turn runs. Returns how many were running."""
        running: int = (await self._find(owner))["running"]
        started = time.monotonic()
        while (waited := time.monotonic() - started) < self._max_wait_seconds:
            if waited >= self._wait_seconds and not (await self._find(owner))["running"]:
                break
            await asyncio.sleep(POLL_SECONDS)
        return running

    async def _find(self, owner: str) -> Row:
        (found,) = await self._database.run(owner, sql.IS_KNOWN, user_hash=self._hashes.of_user(owner))
        return found

    async def _erase_rows(self, owner: str, receipt: Receipt) -> None:
        for table, statement in sql.ERASE_ROWS.items():
            count = sql.BATCH
            while count == sql.BATCH:
                count = len(await self._database.run(owner, statement))
                receipt.rows[table] += count
        while files := await self._database.run(owner, sql.LIST_FILES):
            for file in files:
                # The bytes first: without its row, nobody would know of them.
                if file["storage_key"] is not None and await self._storage.remove_all(file["storage_key"]):
                    receipt.files += 1
                    receipt.bytes += file["stored_bytes"] or 0
                done = await self._database.run(owner, sql.ERASE_FILE, attachment_id=file["attachment_id"])
                receipt.rows["chat_attachments"] += len(done)
        receipt.rows["chat_users"] += len(await self._database.run(owner, sql.ERASE_USER))
        # After the row of the user, without which nobody writes the name into the log again.
        receipt.unnamed_entries += await self._forget_names(receipt.user_hash, FOREVER)

    async def _forget_names(self, user_hash: str, before: datetime) -> int:
        forgotten = await self._database.run_for_all_owners(FORGET_NAMES, user_hash=user_hash, before=before)
        return len(forgotten)

    async def _put_tombstone(self, receipt: Receipt) -> None:
        document = json.dumps({"erased_at": receipt.erased_at.isoformat()}).encode()
        # Of a database that is restored, the table may be older than the erasure.
        name = f"{TOMBSTONES}/{receipt.user_hash}"
        with suppress(NotSupported):
            await self._storage.put(name, document, content_type="application/json", disposition="attachment")
        await self._database.run_for_all_owners(
            sql.NOTE_ERASED, user_hash=receipt.user_hash, erased_at=receipt.erased_at.isoformat()
        )

    async def _tombstones(self) -> AsyncIterator[tuple[str, datetime]]:
        after = ""
        while page := await self._database.run_for_all_owners(sql.LIST_ERASED, after=after):
            for row in page:
                yield row["user_hash"], row["erased_at"]
            after = page[-1]["user_hash"]
        for name in await self._storage.names(TOMBSTONES):
            found = json.loads(await self._storage.read(f"{TOMBSTONES}/{name}", 1000))
            yield name, datetime.fromisoformat(found["erased_at"])
