"""Reads items of threads, changes finished ones outside of a turn, and stores feedback on them."""

from chatkit.types import ClientToolCallItem, Page, ThreadItem

from chatkit_postgres.db import Database
from chatkit_postgres.errors import Conflict, NotFound
from chatkit_postgres.store import cursors, rows
from chatkit_postgres.store.caller import Caller, owner_of, session_of
from chatkit_postgres.store.cursors import page_size
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.refusals import check_active, explain_refusal
from chatkit_postgres.store.sql import items as sql
from chatkit_postgres.store.sql.feedback import SAVE_FEEDBACK
from chatkit_postgres.store.sql.threads import LOAD_THREAD
from chatkit_postgres.store.unreadable import STAND_INS
from chatkit_postgres.store.views import view_of

UNFINISHED = "This is still being written."


class ItemRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_page(
        self, thread_id: str, after: str | None, limit: int | None, order: str, caller: Caller, *, hidden: bool = True
    ) -> Page[ThreadItem]:
        """A page by position; with ``hidden=False``, of the items that a client may see. An absent thread, or somebody
        else's, is an empty page: the SDK expects that.

        ``after`` is a page's ``after``, whose item may be deleted by now, or the id of an item. Raises NotFound if it
        is neither.
        """
        size = page_size(limit)
        session_id = session_uuid(thread_id)
        cursor = cursors.decode(session_id, after) if after else None
        session = session_of(caller, thread_id)
        found = await self._database.run(
            owner_of(caller),
            sql.LIST_ITEMS_OLDEST_FIRST if order == "asc" else sql.LIST_ITEMS_NEWEST_FIRST,
            session=session_id,
            after=message_uuid(session_id, cursor.row_id) if cursor is not None else None,
            after_position=cursor.place if cursor is not None else None,
            with_hidden=hidden,
            page=size + 1,
            **view_of(session),
        )
        if after and found[0]["found"] is None:
            raise NotFound
        items = [rows.load_item(row, thread_id) for row in found if row["item"] is not None]
        has_more = len(items) > size
        del items[size:]
        if session is not None:
            session.know(*items)
        next_page = cursors.encode(session_id, items[-1].id, found[size - 1]["position"]) if has_more else None
        return Page(data=items, has_more=has_more, after=next_page)

    async def load(self, thread_id: str, item_id: str, caller: Caller) -> ThreadItem:
        """Raises NotFound if it is absent, in another thread, or somebody else's."""
        session_id = session_uuid(thread_id)
        session = session_of(caller, thread_id)
        found = await self._database.run(
            owner_of(caller),
            sql.LOAD_ITEM,
            session=session_id,
            message=message_uuid(session_id, item_id),
            **view_of(session),
        )
        if not found:
            raise NotFound
        item = rows.load_item(found[0], thread_id)
        if session is not None:
            session.know(item)
        return item

    async def load_last_call(self, thread_id: str, caller: Caller) -> ClientToolCallItem | None:
        """The newest client tool call after the user's last message, answered or not."""
        found = await self._database.run(owner_of(caller), sql.FIND_LAST_CALL, session=session_uuid(thread_id))
        item = rows.load_item(found[0], thread_id) if found else None
        if item is not None and (session := session_of(caller, thread_id)) is not None:
            session.know(item)
        return item if isinstance(item, ClientToolCallItem) else None

    async def change(self, thread_id: str, item: ThreadItem, caller: Caller) -> None:
        """Replace a finished item outside of a turn. Raises NotFound if it is absent, ThreadLocked or ThreadClosed,
        Conflict while it is still being written."""
        if isinstance(item, STAND_INS):
            raise Conflict("This cannot be changed by this version of the server.")
        session_id = session_uuid(thread_id)
        row = rows.item_row(item)
        changed = await self._database.run(
            owner_of(caller),
            sql.CHANGE_ITEM,
            session=session_id,
            message=message_uuid(session_id, row.item_id),
            item_type=row.item_type,
            content=row.content,
            **item_entry(owner_of(caller), item),
            item=row.item,
        )
        if not changed:
            await self.load(thread_id, item.id, caller)
            await explain_refusal(self._database, owner_of(caller), session_id, if_active=Conflict(UNFINISHED))

    async def save_feedback(self, thread_id: str, item_ids: list[str], kind: str, caller: Caller) -> None:
        """The caller's opinion on items of one thread; the latest wins. Saves nothing and raises NotFound if one of
        them is not an item of the caller's in that thread; ThreadLocked or ThreadClosed."""
        session_id = session_uuid(thread_id)
        saved = await self._database.run(
            owner_of(caller),
            SAVE_FEEDBACK,
            session=session_id,
            messages=sorted({message_uuid(session_id, item_id) for item_id in item_ids}),
            kind=kind,
        )
        if not saved[0]["complete"]:
            found = await self._database.run(owner_of(caller), LOAD_THREAD, session=session_id)
            if found:
                check_active(rows.load_thread(found[0]))
            raise NotFound
