"""Imports hosted threads: each for the user whom the map names. What is here already stays, so it can be repeated."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.auth.user import is_user_id
from chatkit_postgres.db import Database
from chatkit_postgres.user_data.archive import BadArchiveError
from chatkit_postgres.user_data.hosted.convert import Record, converted
from chatkit_postgres.user_data.hosted.dump import BadDumpError
from chatkit_postgres.user_data.hosted.source import HostedThread
from chatkit_postgres.user_data.importing import Import


@dataclass(frozen=True, slots=True)
class LeftOut:
    thread_id: str
    item_id: str
    """Empty for a whole thread."""
    reason: str

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.thread_id, self.item_id)))
        return f"{place}: {self.reason}" if place else self.reason


@dataclass
class HostedReport:
    imported: Counter[str] = field(default_factory=Counter)
    """By the type of the records."""
    known: Counter[str] = field(default_factory=Counter)
    """Those that were here already."""
    left_out: list[LeftOut] = field(default_factory=list)
    unmapped: Counter[str] = field(default_factory=Counter)
    """Threads of hosted users whom the map does not name."""
    placeholders: int = 0
    """Attachments without their bytes."""


class HostedImport:
    def __init__(self, database: Database, storage: Storage, users: Mapping[str, str] | None = None) -> None:
        """``users``: from the hosted user to the user id here; None: they are the same."""
        self._database = database
        self._storage = storage
        self._users = users
        self.report = HostedReport()

    async def add(self, hosted: HostedThread) -> None:
        """Raises DatabaseUnavailable."""
        report, thread_id = self.report, str(hosted.thread.get("id"))
        owner = self._owner_of(hosted, thread_id)
        if owner is None:
            return
        try:
            done = converted(hosted)
        except (ValueError, KeyError, TypeError) as error:
            report.left_out.append(LeftOut(thread_id, "", f"this is no thread: {error}"))
            return
        report.left_out += (LeftOut(thread_id, item_id, reason) for item_id, reason in done.left_out)
        report.placeholders += done.placeholders
        importing = Import(self._database, self._storage, owner)
        try:
            async for _ in importing.run(_Records(done.records)):
                pass
        except BadArchiveError as error:
            report.left_out.append(LeftOut(thread_id, "", str(error)))
        report.imported += importing.report.imported
        report.known += importing.report.known
        for kind, count in importing.report.left_out.items():
            if count:
                reason = "messages of this thread were written here meanwhile; import once more"
                report.left_out.append(LeftOut(thread_id, "", f"{count} of the type {kind}: {reason}"))

    def note_damaged(self, error: BadDumpError) -> None:
        self.report.left_out.append(LeftOut("", "", str(error)))

    def _owner_of(self, hosted: HostedThread, thread_id: str) -> str | None:
        """None for a user who has no place here, which is reported."""
        user = hosted.thread.get("user")
        owner = user if self._users is None else self._users.get(str(user))
        if owner is None and self._users is None:
            self.report.left_out.append(LeftOut(thread_id, "", "it has no user"))
        elif owner is None:
            self.report.unmapped[str(user)] += 1
        elif not is_user_id(owner):
            self.report.left_out.append(LeftOut(thread_id, "", f"{owner!r} cannot be a user here; name one in a map"))
            return None
        return owner


class _Records:
    """In place of an archive."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._read = 0

    @property
    def size(self) -> int:
        return self._read

    def records(self) -> Iterator[tuple[int, dict[str, Any], int]]:
        for number, record in enumerate(self._records, 1):
            self._read += len(json.dumps(record))
            yield number, record, self._read

    def has(self, name: str) -> bool:  # noqa: ARG002 - an archive's signature
        return False

    def open(self, name: str) -> IO[bytes]:
        raise KeyError(name)
