"""Writes items of threads: appended in the order they were accepted, each once, under the fence of the turn."""

from dataclasses import dataclass
from functools import partial as partial_of

from chatkit.types import (
    AssistantMessageItem,
    ClientToolCallItem,
    StructuredInputItem,
    ThreadItem,
    WorkflowItem,
)

from chatkit_postgres.db import Database, Statement
from chatkit_postgres.errors import AttachmentUnavailable, Conflict, NotFound
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import rows
from chatkit_postgres.store.attachments import sent_with
from chatkit_postgres.store.caller import Caller, owner_of, session_of
from chatkit_postgres.store.detached import DetachedWrites
from chatkit_postgres.store.ids import kind_of, message_uuid, new_id, session_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.items import ItemRepository
from chatkit_postgres.store.refusals import claim_errors, explain_refusal, lost_fence
from chatkit_postgres.store.sql import items as sql
from chatkit_postgres.store.unreadable import STAND_INS
from chatkit_postgres.store.views import claim_of, window_of

logger = get_logger(__name__)


@dataclass(frozen=True)
class OutsideWrite:
    """An item that is written outside of a turn."""

    owner: str
    thread_id: str
    item: ThreadItem
    replace: bool

    def covers(self, other: "OutsideWrite") -> bool:
        """Whether adding ``other`` next changes nothing: a stock server that is cancelled while it saves a finished
        message adds its partial text again."""
        mine, theirs = self.item, other.item
        return (
            not (self.replace or other.replace)
            and (self.owner, self.thread_id, mine.id) == (other.owner, other.thread_id, theirs.id)
            and isinstance(mine, AssistantMessageItem)
            and isinstance(theirs, AssistantMessageItem)
            and _text_of(mine).startswith(_text_of(theirs))
        )


class ItemWriter:
    def __init__(self, database: Database, items: ItemRepository) -> None:
        self._database = database
        self._items = items
        self.detached = DetachedWrites[OutsideWrite]()

    async def add(self, thread_id: str, item: ThreadItem, caller: Caller) -> None:
        """Append an item. Under an id that the thread has already, a workflow is continued, a final item replaces its
        own partial, and the very same item changes nothing.

        Any other item under such an id (chat completions give one id to all messages) is dropped within a turn, whose
        ids are all ours, and stored under a new id outside of one. Raises like ``save``.
        """
        await self._write(thread_id, item, caller, replace=False)

    async def save(self, thread_id: str, item: ThreadItem, caller: Caller) -> None:
        """Append an item, or replace the one with its id.

        An item that has its answer (``completed``, ``answered``, ``skipped``) stays as it is: another turn's
        attempt raises Conflict, which makes this the compare-and-set of tool outputs and structured input. Outside of a
        turn an earlier state of it changes nothing, and anything else is stored under a new id.

        Raises NotFound if the thread is absent, Superseded if a newer turn owns it, ThreadNotActive if this
        write would open a turn in a locked or closed thread.
        """
        await self._write(thread_id, item, caller, replace=True)

    async def delete(self, thread_id: str, item_id: str, caller: Caller) -> None:
        """Delete an item; nothing if it is absent. Raises Superseded if a newer turn owns the thread."""
        self.detached.forget()
        session = session_of(caller, thread_id)
        session_id = session_uuid(thread_id)
        done = await self._database.run(
            owner_of(caller),
            sql.DELETE_ITEM,
            session=session_id,
            message=message_uuid(session_id, item_id),
            turn=session.turn_id if session is not None and session.is_open else None,
        )
        if session is None:
            return
        if done and not done[0]["accepted"]:
            raise lost_fence(session)
        session.committed.pop(item_id, None)

    async def publish_answer(self, thread_id: str, caller: Caller) -> None:
        """Show the drafts of a turn that an output guardrail accepted, and those of a retry whose answer is a workflow
        alone, in place of the answer that a retry replaces. Raises Superseded or NotFound."""
        session = session_of(caller, thread_id)
        if session is None or not (session.has_drafts or session.has_hidden_work):
            return
        done = await self._database.run(
            owner_of(caller),
            sql.PUBLISH_ANSWER,
            session=session_uuid(thread_id),
            turn=session.turn_id,
            **window_of(session.retry),
        )
        if not done:
            raise NotFound
        if not done[0]["accepted"]:
            raise lost_fence(session)
        session.retry, session.awaits_verdict, session.has_drafts = None, False, False
        session.has_hidden_work = False

    async def _write(self, thread_id: str, item: ThreadItem, caller: Caller, *, replace: bool) -> None:
        if isinstance(item, STAND_INS):
            return
        if session_of(caller, thread_id) is None:
            write = partial_of(self._write_outside_of_turns, thread_id, item, caller, replace=replace)
            await self.detached.run(OutsideWrite(owner_of(caller), thread_id, item, replace=replace), write)
        else:
            await self._write_once(thread_id, item, caller, replace=replace)

    async def _write_outside_of_turns(
        self, thread_id: str, item: ThreadItem, caller: Caller, before: OutsideWrite | None, *, replace: bool
    ) -> None:
        if before is not None and before.covers(OutsideWrite(owner_of(caller), thread_id, item, replace=replace)):
            return
        if await self._write_once(thread_id, item, caller, replace=replace):
            return
        if not _is_earlier_state(item, await self._items.load(thread_id, item.id, caller)):
            new = item.model_copy(update={"id": new_id(kind_of(item))})
            logger.info("item_id_taken", item_type=item.type, new_item_id=new.id)
            await self._write_once(thread_id, new, caller, replace=False)

    async def _write_once(self, thread_id: str, item: ThreadItem, caller: Caller, *, replace: bool) -> bool:
        """Return whether the row with the item's id now equals the item."""
        session = session_of(caller, thread_id)
        row = rows.item_row(item)
        if session is not None and session.committed.get(item.id) == row.digest:
            return True
        opens = session is not None and not session.is_open
        is_draft = session is not None and session.hides(item, partial=False)
        replaces_answer = session is not None and session.retry is not None and not is_draft
        session_id = session_uuid(thread_id)
        # A context without a session binds attachments by saving them.
        sent = sent_with(item, session) if session is not None else []
        with claim_errors(session):
            written = await self._database.run(
                owner_of(caller),
                _statement(replaces_answer=replaces_answer, sends=bool(sent)),
                session=session_id,
                message=message_uuid(session_id, row.item_id),
                item_id=rows.storable(row.item_id),
                item_type=row.item_type,
                sender_type=row.sender_type,
                sender_name=session.sender_name if session is not None and row.sender_type == "assistant" else None,
                content=row.content,
                item=row.item,
                **item_entry(owner_of(caller), item),
                draft=is_draft,
                replace=replace,
                turn=session.turn_id if session is not None else None,
                opens=opens,
                attachments=sent,
                thread_id=thread_id,
                **claim_of(session),
                **window_of(session.retry if session is not None else None),
            )
        if not written:
            raise NotFound
        outcome = written[0]
        if not outcome["complete"]:
            raise AttachmentUnavailable
        if not outcome["accepted"]:
            await explain_refusal(self._database, owner_of(caller), session_id, fenced=None if opens else session)
        is_held: bool = outcome["same"]
        if session is None:
            return is_held
        if outcome["settled"] and not outcome["same"] and not outcome["ours"]:
            raise Conflict
        if opens:
            session.previous_turn_id = outcome["fence_before"]
            session.closed_calls = outcome["closed_calls"]
        session.thread_id = thread_id
        session.know(item)
        session.has_drafts = session.has_drafts or (is_draft and session.awaits_verdict)
        session.has_hidden_work = session.has_hidden_work or (is_draft and isinstance(item, WorkflowItem))
        if outcome["replaced"]:
            session.retry, session.has_hidden_work = None, False
        session.committed[item.id] = row.digest
        return is_held


def _text_of(message: AssistantMessageItem) -> str:
    return "".join(part.text for part in message.content)


def _is_earlier_state(item: ThreadItem, stored: ThreadItem) -> bool:
    """Whether an item is a call, or questions, that have their answer by now."""
    match item, stored:
        case ClientToolCallItem(), ClientToolCallItem():
            return (item.call_id, item.name, item.arguments) == (stored.call_id, stored.name, stored.arguments)
        case StructuredInputItem(), StructuredInputItem():
            return [asked.id for asked in item.inputs] == [asked.id for asked in stored.inputs]
        case _:
            return False


def _statement(*, replaces_answer: bool, sends: bool) -> Statement:
    if replaces_answer:
        return sql.APPEND_ITEM_OF_RETRY
    return sql.APPEND_ITEM_WITH_ATTACHMENTS if sends else sql.APPEND_ITEM
