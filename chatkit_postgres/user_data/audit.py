"""The audit log: who looked at whose conversations.

The entries are a chain: the hash of each one covers the one before it, under the operator's key. So who can write to
the database, but has no key, can neither change an entry nor leave one out without `audit verify` noticing it. Whether
the newest ones were cut off shows only against a head that was noted elsewhere.

The chain has keyed hashes of names, and the names stand beside it, so that those of an erased user can be removed. It
also says which names stood there: one that is gone is in order only if the chain has the erasure of that user.
"""

import asyncio
import hmac
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, Literal

from chatkit_postgres.db import Database, Row
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store.rows import storable
from chatkit_postgres.store.sql import audit as sql
from chatkit_postgres.user_data.hashes import Hashes

MAX_ATTEMPTS = 30
MAX_THREAD_ID = 200
RETRY_SECONDS = 0.02
ERASURE: Literal["user.erase"] = "user.erase"
BEGINNING = ""
"""In place of a hash before the first entry."""

Action = Literal["threads.list", "thread.show", "items.list", "user.show", "user.export", "user.erase", "feedback"]


@dataclass(frozen=True, slots=True)
class Look:
    actor: str
    """The operator's name on the machine, or the user id of the token."""
    via: Literal["command", "http"]
    action: Action
    subject: str | None = None
    """The user whose conversations; None: of all users."""
    thread_id: str | None = None
    subject_hash: str | None = None
    """In place of the subject: of somebody whose name is not known any more."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry."""

    sequence: int = 0
    hash: str = BEGINNING

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


class BrokenChainError(Exception):
    """Its sentence says which entry is not as it was written."""


class Audit:
    def __init__(self, database: Database, key: str) -> None:
        """With another key, no entry that was written before is as it was."""
        self._database = database
        self._hashes = Hashes(key)

    async def record(self, look: Look) -> None:
        """Add an entry. Raises DatabaseUnavailable; then nothing may be shown."""
        for _ in range(MAX_ATTEMPTS):
            if await self._database.run_transaction(
                "append_audit", lambda transaction: self._append(look, transaction)
            ):
                return
            # Another process was faster.
            await asyncio.sleep(RETRY_SECONDS * random.random())  # noqa: S311 - no secret
        raise DatabaseUnavailable

    async def verify(self, expected: Head | None = None) -> Head:
        """The head of a chain that is as it was written. ``expected``: an earlier head, which must be part of it.
        Raises BrokenChainError, DatabaseUnavailable."""
        head, erased, unnamed = Head(), set[str](), dict[str, int]()
        async for row in self.entries():
            if row["sequence"] != head.sequence + 1:
                raise BrokenChainError(f"Entry {head.sequence + 1} is missing.")
            gone = self._removed_names(row, head)
            if gone is None:
                raise BrokenChainError(f"Entry {row['sequence']} is not as it was written, or has another key.")
            unnamed |= dict.fromkeys(gone, row["sequence"])
            if row["action"] == ERASURE and row["subject_hash"] is not None:
                erased.add(row["subject_hash"])
            head = Head(row["sequence"], row["hash"])
            if expected is not None and head.sequence == expected.sequence and head != expected:
                raise BrokenChainError(f"Entry {head.sequence} is another one than it was.")
        if expected is not None and head.sequence < expected.sequence:
            raise BrokenChainError(f"Entries {head.sequence + 1} to {expected.sequence} are missing.")
        for name, sequence in unnamed.items():
            if name not in erased:
                raise BrokenChainError(f"Entry {sequence} had a name, and nobody was erased.")
        return head

    async def entries(self, subject: str | None = None) -> AsyncIterator[Row]:
        """The oldest first. ``subject``: only those about this user, who may be erased by now."""
        after = 0
        while page := await self._page(subject, after):
            for row in page:
                yield row
            after = page[-1]["sequence"]

    async def _page(self, subject: str | None, after: int) -> list[Row]:
        if subject is None:
            return list(await self._database.run_for_all_owners(sql.LIST_ENTRIES, after=after))
        subject_hash = self._hashes.of_user(subject)
        return list(
            await self._database.run_for_all_owners(sql.LIST_ENTRIES_OF_SUBJECT, subject_hash=subject_hash, after=after)
        )

    async def _append(self, look: Look, transaction: Transaction) -> bool:
        """False if there is a newer head by now."""
        at, hashes = datetime.now(UTC), self._hashes
        thread_id = _storable(look.thread_id) if look.thread_id is not None else None
        subject, shown_thread = None, None
        if look.subject is not None:
            found = await transaction.run(look.subject, sql.FIND_AUDITED, thread_id=thread_id)
            subject = look.subject if found else None
            shown_thread = thread_id if found and found[0]["has_thread"] else None
        newest = await transaction.run("", sql.FIND_HEAD)
        head = Head(newest[0]["sequence"], newest[0]["hash"]) if newest else Head()
        entry = {
            "sequence": head.sequence + 1,
            "at": at,
            "via": look.via,
            "actor": look.actor,
            "actor_hash": hashes.of_user(look.actor),
            "action": look.action,
            "subject": subject,
            "subject_hash": hashes.of_user(look.subject) if look.subject is not None else look.subject_hash,
            "thread_id": shown_thread,
            "thread_hash": hashes.of_thread(thread_id) if thread_id is not None else None,
        }
        content = _content(entry, subject is not None, shown_thread is not None)
        added = await transaction.run("", sql.APPEND_ENTRY, **entry, hash=hashes.of_entry(head.hash, content))
        return bool(added)

    def _removed_names(self, row: Row, head: Head) -> set[str] | None:
        """The hashes of users whose names were removed from an entry; None if it is not as it was written."""
        hashes = self._hashes
        if not (
            (row["actor"] is None or hashes.of_user(row["actor"]) == row["actor_hash"])
            and (row["subject"] is None or hashes.of_user(row["subject"]) == row["subject_hash"])
            and (row["thread_id"] is None or hashes.of_thread(row["thread_id"]) == row["thread_hash"])
            and (row["actor"] is not None or row["via"] == "http")
        ):
            return None
        is_named = row["subject"] is not None, row["thread_id"] is not None
        for had_names in product((False, True), repeat=2):
            expected = hashes.of_entry(head.hash, _content(row, *had_names))
            if hmac.compare_digest(expected, row["hash"]):
                had_more = any(had and not has for had, has in zip(had_names, is_named, strict=True))
                has_more = any(has and not had for had, has in zip(had_names, is_named, strict=True))
                gone = {row["subject_hash"]} if had_more else set[str]()
                return None if has_more else gone | ({row["actor_hash"]} if row["actor"] is None else set())
        return None


def _storable(thread_id: str) -> str:
    return storable(thread_id[:MAX_THREAD_ID].encode(errors="replace").decode())


def _content(entry: Mapping[str, Any] | Row, has_subject: bool, has_thread: bool) -> bytes:
    """What the hash of an entry covers, with whether it was written with names."""
    at = entry["at"].astimezone(UTC).isoformat(timespec="microseconds")
    fields = [entry[name] for name in ("via", "actor_hash", "action", "subject_hash", "thread_hash")]
    return json.dumps([entry["sequence"], at, *fields, has_subject, has_thread]).encode()
