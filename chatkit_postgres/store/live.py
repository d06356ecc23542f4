"""Finds, polls and stops the running turn of a thread, whichever process runs it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chatkit.types import ThreadItem

from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import Caller, owner_of
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.owners import SeveralOwners
from chatkit_postgres.store.sql import live as sql
from chatkit_postgres.store.threads import ThreadSince


@dataclass(frozen=True, slots=True)
class RunningTurnRow:
    """A turn that is running, as the ledger knows it."""

    thread_id: str
    session_id: UUID
    turn_id: UUID
    retry_from: int | None
    open_position: int | None
    first_position: int
    """The position of its first item."""


@dataclass(frozen=True, slots=True)
class LiveItem:
    """An item of a running turn, with its text so far."""

    message_id: str
    """The id of its row."""
    item: ThreadItem
    is_partial: bool


@dataclass(frozen=True, slots=True)
class LogText:
    """An entry of the log."""

    sequence: int
    message_id: str
    content_index: int
    start: int
    text: str
    annotation: Any


@dataclass(frozen=True, slots=True)
class Position:
    """How far a follower of a turn is."""

    owner: str
    session_id: UUID
    turn_id: UUID
    sequence: int
    """The sequence number of the last entry of the log that it has."""
    seen_at: datetime | None
    """The last change of the thread that it has."""


@dataclass(frozen=True, slots=True)
class News:
    state: str | None
    """The state of the turn; None if the turn or its thread was deleted."""
    error_code: str | None
    changed_at: datetime | None
    entries: Sequence[LogText]


class LiveRepository:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._several = SeveralOwners(database)

    async def find(self, thread_id: str, caller: Caller, *, stale_seconds: float) -> RunningTurnRow | None:
        """The running turn of a thread; None if there is none, or only that of a dead process. Raises NotFound."""
        session_id = session_uuid(thread_id)
        found = await self._database.run(
            owner_of(caller), sql.FIND_RUNNING_TURN, session=session_id, stale_seconds=stale_seconds
        )
        if not found:
            raise NotFound
        row = found[0]
        if row["turn_id"] is None or row["is_stale"]:
            return None
        return RunningTurnRow(
            thread_id=row["thread_id"],
            session_id=session_id,
            turn_id=row["turn_id"],
            retry_from=row["retry_from"],
            open_position=row["open_position"],
            first_position=row["first_position"],
        )

    async def running(self, caller: Caller, *, stale_seconds: float, limit: int) -> list[ThreadSince]:
        """The owner's threads with a running turn, the newest turn first."""
        found = await self._database.run(
            owner_of(caller), sql.LIST_RUNNING_THREADS, stale_seconds=stale_seconds, page=limit
        )
        return [ThreadSince(row["thread_id"], row["since"]) for row in found]

    async def request_stop(self, thread_id: str, caller: Caller) -> UUID | None:
        """Ask the process that runs the turn of a thread to stop it. Returns the turn; None if none is running. Raises
        NotFound."""
        found = await self._database.run(owner_of(caller), sql.REQUEST_STOP, session=session_uuid(thread_id))
        if not found:
            raise NotFound
        turn_id: UUID | None = found[0]["turn_id"]
        return turn_id

    async def items(self, turn: RunningTurnRow, caller: Caller) -> list[LiveItem]:
        """The items of the turn that its owner may see, with the text so far."""
        found = await self._database.run(
            owner_of(caller),
            sql.LIST_ITEMS_OF_RUNNING_TURN,
            session=turn.session_id,
            turn=turn.turn_id,
            first_position=turn.first_position,
        )
        return [
            LiveItem(str(row["message_id"]), rows.load_item(row, turn.thread_id), row["is_partial"]) for row in found
        ]

    async def replaced_item_ids(self, turn: RunningTurnRow, caller: Caller) -> list[str]:
        """The items of the old answer that a retry will replace."""
        if turn.retry_from is None or turn.open_position is None:
            return []
        found = await self._database.run(
            owner_of(caller),
            sql.LIST_REPLACED_ITEMS,
            session=turn.session_id,
            retry_from=turn.retry_from,
            open_position=turn.open_position,
        )
        return [row["item_id"] for row in found]

    async def poll(self, positions: Sequence[Position]) -> dict[int, News]:
        """The news of turns of several owners: by the index of the position, where there are any."""
        followed = [
            {
                "number": number,
                "user_id": position.owner,
                "session_id": str(position.session_id),
                "turn_id": str(position.turn_id),
                "after": position.sequence,
                "seen_at": position.seen_at.isoformat() if position.seen_at is not None else None,
            }
            for number, position in enumerate(positions)
        ]
        found = await self._several.run(sql.POLL_TURNS, sql.POLL_TURNS_OF_OWNER, {"followed": followed})
        return {
            row["number"]: News(row["state"], row["error_code"], row["updated_at"], _entries(row["entries"]))
            for row in found.rows
        }


def _entries(text: str | None) -> list[LogText]:
    return [LogText(*entry) for entry in json.loads(text)] if text is not None else []
