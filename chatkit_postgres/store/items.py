"""Thread items: appended in the order they were accepted, each once, under the fence of the turn that writes."""

from dataclasses import dataclass
from functools import partial as partial_of
from typing import Any, NoReturn
from uuid import UUID

from chatkit.types import AssistantMessageItem, ClientToolCallItem, Page, StructuredInputItem, ThreadItem

from chatkit_postgres.context import RetryWindow, Turn
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.errors import AttachmentUnavailable, Conflict, NotFound, ThreadNotActive
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import cursors, rows
from chatkit_postgres.store.attachments import sent_with
from chatkit_postgres.store.detached import DetachedWrites
from chatkit_postgres.store.ids import kind_of, message_uuid, new_id, session_uuid
from chatkit_postgres.store.scope import check_active, claim_errors, claim_of, clamped, lost_fence, owner_of, turn_of
from chatkit_postgres.store.sql import items as sql
from chatkit_postgres.store.sql.threads import LOAD_THREAD
from chatkit_postgres.store.unreadable import STAND_INS

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


def _text_of(message: AssistantMessageItem) -> str:
    return "".join(part.text for part in message.content)


class ItemRows:
    database: Database
    detached: DetachedWrites[OutsideWrite]

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int | None, order: str, context: Any
    ) -> Page[ThreadItem]:
        """A page by position. An absent thread, or somebody else's, is an empty page: the SDK expects that.

        ``after`` is a page's ``after``, whose item may be gone by now, or the id of an item. Raises NotFound if it is
        neither.
        """
        return await self._load_page(thread_id, after, limit, order, context, with_hidden=True)

    async def load_shown_items(
        self, thread_id: str, after: str | None, limit: int | None, order: str, context: Any
    ) -> Page[ThreadItem]:
        """The same, of the items that a client may see."""
        return await self._load_page(thread_id, after, limit, order, context, with_hidden=False)

    async def _load_page(
        self, thread_id: str, after: str | None, limit: int | None, order: str, context: Any, *, with_hidden: bool
    ) -> Page[ThreadItem]:
        size = clamped(limit)
        session = session_uuid(thread_id)
        cursor = cursors.decode(session, after) if after else None
        turn = turn_of(context, thread_id)
        found = await self.database.run(
            owner_of(context),
            sql.LIST_ITEMS_OLDEST_FIRST if order == "asc" else sql.LIST_ITEMS_NEWEST_FIRST,
            session=session,
            after=message_uuid(session, cursor.row_id) if cursor is not None else None,
            after_position=cursor.place if cursor is not None else None,
            with_hidden=with_hidden,
            page=size + 1,
            **view_of(turn),
        )
        if after and found[0]["found"] is None:
            raise NotFound
        items = [rows.load_item(row, thread_id) for row in found if row["item"] is not None]
        has_more = len(items) > size
        del items[size:]
        if turn is not None:
            turn.known_item_ids.update(item.id for item in items)
        next_page = cursors.encode(session, items[-1].id, found[size - 1]["position"]) if has_more else None
        return Page(data=items, has_more=has_more, after=next_page)

    async def load_item(self, thread_id: str, item_id: str, context: Any) -> ThreadItem:
        """Raises NotFound if it is absent, in another thread, or somebody else's."""
        session = session_uuid(thread_id)
        turn = turn_of(context, thread_id)
        found = await self.database.run(
            owner_of(context),
            sql.LOAD_ITEM,
            session=session,
            message=message_uuid(session, item_id),
            **view_of(turn),
        )
        if not found:
            raise NotFound
        if turn is not None:
            turn.known_item_ids.add(item_id)
        return rows.load_item(found[0], thread_id)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Append an item. Under an id that the thread has already, a workflow is continued, a final item replaces its
        own partial, and the very same item changes nothing.

        Any other item under such an id (chat completions give one id to all messages) is dropped within a turn, whose
        ids are all ours, and kept under a new id outside of one. Raises like ``save_item``.
        """
        await self._write(thread_id, item, context, replace=False)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Append an item, or replace the one with its id.

        An item that has its answer (``completed``, ``answered``, ``skipped``) stays as it is: another turn's
        attempt raises Conflict, which makes this the compare-and-set of tool outputs and structured input. Outside of a
        turn an earlier state of it changes nothing, and anything else is kept under a new id.

        Raises NotFound if the thread is absent, Superseded if a newer turn owns it, ThreadNotActive if this
        write would open a turn in a locked or closed thread.
        """
        await self._write(thread_id, item, context, replace=True)

    async def change_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Replace a finished item outside of a turn. Raises NotFound if it is gone, ThreadLocked or ThreadClosed,
        Conflict while it is still being written."""
        if isinstance(item, STAND_INS):
            raise Conflict("This cannot be changed by this version of the server.")
        session = session_uuid(thread_id)
        row = rows.item_row(item)
        changed = await self.database.run(
            owner_of(context),
            sql.CHANGE_ITEM,
            session=session,
            message=message_uuid(session, row.item_id),
            item_type=row.item_type,
            content=row.content,
            item=row.item,
        )
        if not changed:
            await self.load_item(thread_id, item.id, context)
            found = await self.database.run(owner_of(context), LOAD_THREAD, session=session)
            if found:
                check_active(rows.load_thread(found[0]))
            raise Conflict("This is still being written.")

    async def last_call(self, thread_id: str, context: Any) -> ClientToolCallItem | None:
        """The newest client tool call after the user's last message, answered or not."""
        found = await self.database.run(owner_of(context), sql.FIND_LAST_CALL, session=session_uuid(thread_id))
        item = rows.load_item(found[0], thread_id) if found else None
        if item is not None and (turn := turn_of(context, thread_id)) is not None:
            turn.known_item_ids.add(item.id)
        return item if isinstance(item, ClientToolCallItem) else None

    async def checkpoint(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Save an unfinished item. It never replaces a final one. Raises like ``save_item``."""
        await self._write(thread_id, item, context, replace=True, partial=True)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Any) -> None:
        """Remove an item; one that is not there is removed already. Raises Superseded if a newer turn owns the
        thread."""
        self.detached.forget()
        turn = turn_of(context, thread_id)
        session = session_uuid(thread_id)
        done = await self.database.run(
            owner_of(context),
            sql.DELETE_ITEM,
            session=session,
            message=message_uuid(session, item_id),
            turn=turn.id if turn is not None and turn.is_open else None,
        )
        if done and not done[0]["accepted"]:
            raise lost_fence(turn)
        if turn is not None:
            turn.committed.pop(item_id, None)

    async def save_feedback(self, thread_id: str, item_ids: list[str], kind: str, context: Any) -> None:
        """The caller's opinion on items of one thread; the latest wins. Raises NotFound, and saves nothing, if
        any of them is not an item of the caller's in that thread."""
        session = session_uuid(thread_id)
        saved = await self.database.run(
            owner_of(context),
            sql.SAVE_FEEDBACK,
            session=session,
            messages=sorted({message_uuid(session, item_id) for item_id in item_ids}),
            kind=kind,
        )
        if not saved[0]["complete"]:
            raise NotFound

    async def _write(
        self, thread_id: str, item: ThreadItem, context: Any, *, replace: bool, partial: bool = False
    ) -> None:
        if isinstance(item, STAND_INS):
            return
        if turn_of(context, thread_id) is None and not partial:
            write = partial_of(self._write_outside_of_turns, thread_id, item, context, replace=replace)
            await self.detached.run(OutsideWrite(owner_of(context), thread_id, item, replace=replace), write)
        else:
            await self._write_once(thread_id, item, context, replace=replace, partial=partial)

    async def _write_outside_of_turns(
        self, thread_id: str, item: ThreadItem, context: Any, before: "OutsideWrite | None", *, replace: bool
    ) -> None:
        if before is not None and before.covers(OutsideWrite(owner_of(context), thread_id, item, replace=replace)):
            return
        if await self._write_once(thread_id, item, context, replace=replace):
            return
        if not _is_earlier_state(item, await self.load_item(thread_id, item.id, context)):
            new = item.model_copy(update={"id": new_id(kind_of(item))})
            logger.info("item_id_taken", item_type=item.type, new_item_id=new.id)
            await self._write_once(thread_id, new, context, replace=False)

    async def _write_once(
        self, thread_id: str, item: ThreadItem, context: Any, *, replace: bool, partial: bool = False
    ) -> bool:
        """Return whether the row with the item's id now equals the item."""
        turn = turn_of(context, thread_id)
        row = rows.item_row(item)
        if turn is not None and turn.committed.get(item.id) == row.digest:
            return True
        opens = turn is not None and not turn.is_open
        is_draft = turn is not None and _is_draft(item, turn, partial=partial)
        publishes = turn is not None and turn.retry is not None and not is_draft
        session = session_uuid(thread_id)
        # A context without a turn binds attachments by saving them.
        sent = sent_with(item, turn) if turn is not None and not partial else []
        with claim_errors(turn):
            written = await self.database.run(
                owner_of(context),
                _statement(publishes=publishes, partial=partial, sends=bool(sent)),
                session=session,
                message=message_uuid(session, row.item_id),
                item_id=rows.storable(row.item_id),
                item_type=row.item_type,
                sender_type=row.sender_type,
                sender_name=turn.sender_name if turn is not None and row.sender_type == "assistant" else None,
                content=row.content,
                item=row.item,
                partial=partial,
                draft=is_draft,
                replace=replace,
                turn=turn.id if turn is not None else None,
                opens=opens,
                **claim_of(turn),
                **(_window(turn.retry) if turn is not None and turn.retry is not None and publishes else {}),
                **({"attachments": sent, "thread_id": thread_id} if sent or publishes else {}),
            )
        if not written:
            raise NotFound
        if not written[0]["complete"]:
            raise AttachmentUnavailable
        if not written[0]["accepted"]:
            await self._refuse(thread_id, turn, context, opens=opens)
        if turn is not None and written[0]["settled"] and not written[0]["same"] and not written[0]["ours"]:
            raise Conflict
        is_held: bool = written[0]["same"]
        if turn is None:
            return is_held
        if opens:
            turn.found_fence_of = written[0]["fence_before"]
        turn.thread_id = thread_id
        turn.known_item_ids.add(item.id)
        turn.has_drafts = turn.has_drafts or (is_draft and turn.awaits_verdict)
        if publishes:
            turn.retry = None
        if not partial:
            turn.committed[item.id] = row.digest
        return is_held

    async def publish_answer(self, thread_id: str, context: Any) -> None:
        """Show the drafts of a turn, in place of the answer that it replaces if it is a retry: an output guardrail has
        let them through. Raises Superseded or NotFound."""
        turn = turn_of(context, thread_id)
        if turn is None or not turn.has_drafts:
            return
        done = await self.database.run(
            owner_of(context),
            sql.PUBLISH_ANSWER,
            session=session_uuid(thread_id),
            turn=turn.id,
            **(_window(turn.retry) if turn.retry is not None else {"retry_from": None, "open_position": None}),
        )
        if not done:
            raise NotFound
        if not done[0]["accepted"]:
            raise lost_fence(turn)
        turn.retry, turn.awaits_verdict, turn.has_drafts = None, False, False

    async def _refuse(self, thread_id: str, turn: Turn | None, context: Any, *, opens: bool) -> NoReturn:
        """The fence or the status refused a write; or the thread was deleted while the statement waited for it."""
        found = await self.database.run(owner_of(context), LOAD_THREAD, session=session_uuid(thread_id))
        if not found:
            raise NotFound
        if not opens:
            raise lost_fence(turn)
        check_active(rows.load_thread(found[0]))
        # Unlocked between the two statements.
        raise ThreadNotActive


def _is_draft(item: ThreadItem, turn: Turn, *, partial: bool) -> bool:
    """Whether nobody else is to see it yet: what is unfinished of a retry, and what an output guardrail has not judged,
    and then nothing of a retry."""
    if turn.retry is not None:
        return partial or turn.awaits_verdict or turn.has_drafts
    return turn.awaits_verdict and isinstance(item, AssistantMessageItem)


def _is_earlier_state(item: ThreadItem, kept: ThreadItem) -> bool:
    """Whether an item is a call, or questions, that have their answer by now."""
    match item, kept:
        case ClientToolCallItem(), ClientToolCallItem():
            return (item.call_id, item.name, item.arguments) == (kept.call_id, kept.name, kept.arguments)
        case StructuredInputItem(), StructuredInputItem():
            return [asked.id for asked in item.inputs] == [asked.id for asked in kept.inputs]
        case _:
            return False


def _statement(*, publishes: bool, partial: bool, sends: bool) -> Statement:
    if publishes:
        return sql.APPEND_ITEM_OF_RETRY
    if partial:
        return sql.CHECKPOINT_ITEM
    return sql.APPEND_ITEM_WITH_ATTACHMENTS if sends else sql.APPEND_ITEM


def _window(retry: RetryWindow) -> dict[str, int]:
    return {"retry_from": retry.retry_from, "open_position": retry.open_position}


def view_of(turn: Turn | None) -> dict[str, UUID | int | None]:
    return {
        "turn": turn.id if turn is not None else None,
        "retry_from": turn.retry.retry_from if turn is not None and turn.retry is not None else None,
    }
