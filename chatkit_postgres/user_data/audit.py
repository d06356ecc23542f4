"""The audit log: who looked at whose conversations.

The entries are a chain: the hash of each one covers the one before it, under the operator's key. So who can write to
the database, but has no key, can neither change an entry nor leave one out without `audit verify` noticing it. Whether
the newest ones were cut off shows only against a head that was noted elsewhere.

The chain has keyed hashes of names, and the names stand beside it, so that those of an erased user can be removed.
"""

import asyncio
import hmac
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store.rows import storable
from chatkit_postgres.store.sql import audit as sql
from chatkit_postgres.user_data.hashes import Hashes

MAX_ATTEMPTS = 30
MAX_THREAD_ID = 200
RETRY_SECONDS = 0.02
BEGINNING = ""
"""In place of a hash before the first entry."""

Action = Literal[
    "threads.list", "thread.show", "items.list", "user.show", "user.export", "user.erase", "erase-again", "feedback"
]


@dataclass(frozen=True, slots=True)
class Look:
    actor: str
    """The operator's name on the machine, or the user id of the token."""
    via: Literal["command", "http"]
    action: Action
    subject: str | None = None
    """The user whose conversations; None: of all users."""
    thread_id: str | None = None


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
            if await self._append(look, await self._head()):
                return
            # Another process was faster.
            await asyncio.sleep(RETRY_SECONDS * random.random())  # noqa: S311 - no secret
        raise DatabaseUnavailable

    async def verify(self, expected: Head | None = None) -> Head:
        """The head of a chain that is as it was written. ``expected``: an earlier head, which must be part of it.
        Raises BrokenChainError, DatabaseUnavailable."""
        head = Head()
        async for row in self.entries():
            if row["sequence"] != head.sequence + 1:
                raise BrokenChainError(f"Entry {head.sequence + 1} is missing.")
            if not self._is_as_written(row, head):
                raise BrokenChainError(f"Entry {row['sequence']} is not as it was written, or has another key.")
            head = Head(row["sequence"], row["hash"])
            if expected is not None and head.sequence == expected.sequence and head != expected:
                raise BrokenChainError(f"Entry {head.sequence} is another one than it was.")
        if expected is not None and head.sequence < expected.sequence:
            raise BrokenChainError(f"Entries {head.sequence + 1} to {expected.sequence} are missing.")
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

    async def _head(self) -> Head:
        found = await self._database.run_for_all_owners(sql.FIND_HEAD)
        return Head(found[0]["sequence"], found[0]["hash"]) if found else Head()

    async def _append(self, look: Look, head: Head) -> bool:
        """False if there is a newer head by now."""
        at, hashes = datetime.now(UTC), self._hashes
        sequence, actor_hash = head.sequence + 1, hashes.of_user(look.actor)
        subject_hash = hashes.of_user(look.subject) if look.subject is not None else None
        # Of a thread that does not exist, it may be anything.
        thread_id = _storable(look.thread_id) if look.thread_id is not None else None
        thread_hash = hashes.of_thread(thread_id) if thread_id is not None else None
        content = _content(sequence, at, look.via, actor_hash, look.action, subject_hash, thread_hash)
        added = await self._database.run(
            look.subject or "",
            sql.APPEND_ENTRY,
            sequence=sequence,
            at=at,
            via=look.via,
            actor=look.actor,
            actor_hash=actor_hash,
            action=look.action,
            subject_hash=subject_hash,
            thread_id=thread_id,
            thread_hash=thread_hash,
            hash=hashes.of_entry(head.hash, content),
        )
        return bool(added)

    def _is_as_written(self, row: Row, head: Head) -> bool:
        hashes = self._hashes
        content = _content(
            row["sequence"],
            row["at"],
            row["via"],
            row["actor_hash"],
            row["action"],
            row["subject_hash"],
            row["thread_hash"],
        )
        return (
            hmac.compare_digest(hashes.of_entry(head.hash, content), row["hash"])
            and (row["actor"] is None or hashes.of_user(row["actor"]) == row["actor_hash"])
            and (row["subject"] is None or hashes.of_user(row["subject"]) == row["subject_hash"])
            and (row["thread_id"] is None or hashes.of_thread(row["thread_id"]) == row["thread_hash"])
        )


def _storable(thread_id: str) -> str:
    return storable(thread_id[:MAX_THREAD_ID].encode(errors="replace").decode())


def _content(sequence: int, at: datetime, *fields: str | None) -> bytes:
    return json.dumps([sequence, at.astimezone(UTC).isoformat(timespec="microseconds"), *fields]).encode()
