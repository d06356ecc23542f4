"""Saves the unfinished items of running turns, for all turns of a process at once."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chatkit.types import Annotation, ThreadItem

from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import ChatError, Interrupted, NotFound
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import StoreContext, owner_of, required_session
from chatkit_postgres.store.ids import message_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.owners import SeveralOwners
from chatkit_postgres.store.refusals import lost_fence
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import partials as sql
from chatkit_postgres.store.unreadable import STAND_INS


@dataclass(frozen=True, slots=True)
class LogEntry:
    """New text of a message whose partial row was saved before, or a new annotation."""

    item_id: str
    sequence: int
    """Grows within the turn."""
    content_index: int
    start: int
    """Characters of the content's text before this one; of an annotation, the number of annotations."""
    text: str = ""
    annotation: Annotation | None = None


@dataclass(frozen=True, slots=True)
class PartialItem:
    """An unfinished item as a whole."""

    context: StoreContext
    item: ThreadItem


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is new of the messages of one turn."""

    context: StoreContext
    entries: Sequence[LogEntry] = ()

    @property
    def session(self) -> WriteSession:
        return required_session(self.context)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a checkpoint."""

    lost: Mapping[UUID, ChatError | None]
    """The turns that must end, by their ids, each with the reason: Superseded, Interrupted, NotFound if the thread was
    deleted, None if somebody asked to stop it."""
    missed: Collection[str] = ()
    """Owners of whose turns nothing was written, because their node of a cluster is down."""


class PartialRepository:
    def __init__(self, database: Database) -> None:
        self._several = SeveralOwners(database)

    async def save_items(self, partials: Sequence[PartialItem]) -> list[bool]:
        """Save unfinished items of open turns as a whole. Returns for each whether it was saved: not
        if its turn has lost the fence, if its thread is being written to, or if the owner's node of a cluster is down.
        """
        numbers: Counter[UUID] = Counter()
        documents = []
        for partial in partials:
            if isinstance(partial.item, STAND_INS):
                continue
            turn_id = required_session(partial.context).turn_id
            documents.append(_document(partial, numbers[turn_id]))
            numbers[turn_id] += 1
        if not documents:
            return [True] * len(partials)
        saved = await self._several.run(sql.SAVE_PARTIAL_ITEMS, sql.SAVE_PARTIAL_ITEMS_OF_OWNER, {"items": documents})
        keys = {(row["turn_id"], row["message_id"]) for row in saved.rows}
        return [_note_saved(partial, keys) for partial in partials]

    async def checkpoint(self, checkpoints: Sequence[Checkpoint], *, with_heartbeat: bool) -> "Appended":
        """Append to the logs of open turns and, with ``with_heartbeat``, show that they are alive.

        Of a turn that has lost the fence nothing is written.
        """
        turns = [
            {
                "number": number,
                "user_id": owner_of(checkpoint.context),
                "session_id": str(checkpoint.session.session_id),
                "turn_id": str(checkpoint.session.turn_id),
            }
            for number, checkpoint in enumerate(checkpoints)
        ]
        entries = [
            {"user_id": owner_of(checkpoint.context)} | _entry_document(entry, checkpoint.session.session_id, number)
            for number, checkpoint in enumerate(checkpoints)
            for entry in checkpoint.entries
        ]
        found = await self._several.run(
            sql.CHECKPOINT_TURNS,
            sql.CHECKPOINT_TURNS_OF_OWNER,
            {"turns": turns, "entries": entries},
            with_heartbeat=with_heartbeat,
        )
        sessions = {checkpoint.session.turn_id: checkpoint.session for checkpoint in checkpoints}
        return Appended({row["turn_id"]: _reason(row, sessions[row["turn_id"]]) for row in found.rows}, found.missed)


def _document(partial: PartialItem, number: int) -> dict[str, object]:
    session, row = required_session(partial.context), rows.item_row(partial.item)
    return {
        "user_id": owner_of(partial.context),
        "session_id": str(session.session_id),
        "turn_id": str(session.turn_id),
        "sender_name": session.sender_name if row.sender_type == "assistant" else None,
        "is_draft": session.hides(partial.item, partial=True),
        **rows.row_document(row, session.session_id, number),
        **item_entry(owner_of(partial.context), partial.item),
    }


def _note_saved(partial: PartialItem, saved: Collection[tuple[UUID, UUID]]) -> bool:
    session = required_session(partial.context)
    key = (session.turn_id, message_uuid(session.session_id, partial.item.id))
    # What stands in for an item that this code cannot read is never written.
    is_saved = key in saved or isinstance(partial.item, STAND_INS)
    if is_saved and session.awaits_verdict and session.hides(partial.item, partial=True):
        session.has_drafts = True
    return is_saved


def _entry_document(entry: LogEntry, session_id: UUID, number: int) -> dict[str, object]:
    return {
        "number": number,
        "sequence": entry.sequence,
        "message_id": str(message_uuid(session_id, entry.item_id)),
        "content_index": entry.content_index,
        "start": entry.start,
        "text": entry.text,
        "annotation": entry.annotation,
    }


def _reason(row: Row, session: WriteSession) -> ChatError | None:
    if not row["has_thread"]:
        return NotFound()
    if row["holds"]:
        return None
    return Interrupted() if row["state"] == "interrupted" else lost_fence(session)
