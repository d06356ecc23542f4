"""Reads and writes threads: a save writes the columns that the request changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from chatkit.types import Page, ThreadMetadata, UserMessageItem

from chatkit_postgres.db import Database, Row
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import AttachmentUnavailable, NotFound
from chatkit_postgres.store import cursors, rows
from chatkit_postgres.store.attachments import sent_with
from chatkit_postgres.store.caller import Caller, owner_of, request_of, session_of
from chatkit_postgres.store.cursors import page_size
from chatkit_postgres.store.ids import message_uuid, owner_uuid, session_uuid
from chatkit_postgres.store.index_entries import entry_of, item_entry
from chatkit_postgres.store.refusals import claim_errors, explain_refusal
from chatkit_postgres.store.sql import threads as sql
from chatkit_postgres.store.views import claim_of


@dataclass(frozen=True, slots=True)
class ThreadSince:
    """A thread in a state that a list of threads marks, and since when."""

    thread_id: str
    since: datetime


class ThreadRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, thread_id: str, caller: Caller) -> ThreadMetadata:
        """Raises NotFound if it is absent or somebody else's."""
        found = await self._database.run(owner_of(caller), sql.LOAD_THREAD, session=session_uuid(thread_id))
        if not found:
            raise NotFound
        return self._remembered(found[0], caller)

    async def save(self, thread: ThreadMetadata, caller: Caller) -> None:
        """Write the columns that differ from the ones this request loaded or last saved; insert a thread that it did
        not load.

        Inside a turn a column is written only if the row still holds the value that the turn started from, and the
        given object is then updated from the row, so that the announced thread equals the stored one. A caller that
        is no StoreContext writes all columns.

        Raises NotFound if the thread was deleted, Superseded if a newer turn owns it.
        """
        request = request_of(caller)
        base = request.thread_bases.get(thread.id) if request is not None else None
        if base is None:
            await self._insert(thread, caller)
        elif base != rows.thread_columns(thread):
            await self._update(thread, base, caller)

    async def begin(self, thread: ThreadMetadata, message: UserMessageItem, caller: Caller) -> None:
        """Insert a thread with its first message, and open the caller's turn in it.

        Raises AttachmentUnavailable if the message has an attachment that cannot be sent, KeyTaken if the turn's
        idempotency key is taken.
        """
        owner, session, row = owner_of(caller), session_of(caller), rows.item_row(message)
        session_id = session_uuid(thread.id)
        # A context without a session assigns attachments by saving them.
        attachments = {"attachments": sent} if session is not None and (sent := sent_with(message, session)) else {}
        with claim_errors(session):
            begun = await self._database.run(
                owner,
                sql.BEGIN_THREAD_WITH_ATTACHMENTS if attachments else sql.BEGIN_THREAD,
                session=session_id,
                turn=session.turn_id if session is not None else None,
                message=message_uuid(session_id, row.item_id),
                item_id=rows.storable(row.item_id),
                item_type=row.item_type,
                sender_type=row.sender_type,
                content=row.content,
                item=row.item,
                message_words=item_entry(owner, message)["words"],
                **self._columns_of(thread, caller),
                **claim_of(session),
                **attachments,
            )
        if not begun:
            raise AttachmentUnavailable
        if session is not None:
            session.thread_id = thread.id
            session.know(message)
            session.committed[message.id] = row.digest
        self._remembered(begun[0], caller)

    async def load_page(self, limit: int | None, after: str | None, order: str, caller: Caller) -> Page[ThreadMetadata]:
        """The owner's threads by creation. ``after`` is a page's ``after``, whose thread may be gone by now, or the id
        of a thread. Raises NotFound if it is neither."""
        size = page_size(limit)
        owner = owner_of(caller)
        list_id = owner_uuid(owner)
        cursor = cursors.decode(list_id, after) if after else None
        found = await self._database.run(
            owner,
            sql.LIST_THREADS_OLDEST_FIRST if order == "asc" else sql.LIST_THREADS_NEWEST_FIRST,
            after=session_uuid(cursor.row_id) if cursor is not None else None,
            after_time=cursors.time_at(cursor.place) if cursor is not None else None,
            page=size + 1,
        )
        if after and found[0]["found"] is None:
            raise NotFound
        threads = [self._remembered(row, caller) for row in found if row["thread_id"] is not None]
        has_more = len(threads) > size
        del threads[size:]
        next_page = None
        if has_more:
            next_page = cursors.encode(list_id, threads[-1].id, cursors.place_of(found[size - 1]["created_at"]))
        return Page(data=threads, has_more=has_more, after=next_page)

    async def delete(self, thread_id: str, caller: Caller) -> None:
        """The thread, its items and feedback; attachments are marked for removal. Raises NotFound."""
        session = session_uuid(thread_id)

        async def work(transaction: Transaction) -> bool:
            await transaction.run(owner_of(caller), sql.LOCK_THREAD, session=session)
            return bool(await transaction.run(owner_of(caller), sql.DELETE_THREAD, session=session))

        if not await self._database.run_transaction("delete_thread", work):
            raise NotFound

    async def _insert(self, thread: ThreadMetadata, caller: Caller) -> None:
        inserted = await self._database.run(
            owner_of(caller), sql.INSERT_THREAD, session=session_uuid(thread.id), **self._columns_of(thread, caller)
        )
        self._remembered(inserted[0], caller)

    @staticmethod
    def _columns_of(thread: ThreadMetadata, caller: Caller) -> dict[str, str | None]:
        """Of a new thread, with the claims of its user."""
        request = request_of(caller)
        claims = dict(request.claims) if request is not None else {}
        return {
            "thread_id": rows.storable(thread.id),
            "claims": rows.storable_json(rows.dump_json(claims)) if claims else None,
            **rows.thread_columns(thread),
            **entry_of(owner_of(caller), thread.title or ""),
        }

    async def _update(self, thread: ThreadMetadata, base: Mapping[str, str | None], caller: Caller) -> None:
        session = session_of(caller, thread.id)
        fence = session.turn_id if session is not None and session.is_open else None
        columns = rows.thread_columns(thread)
        session_id = session_uuid(thread.id)
        written = await self._database.run(
            owner_of(caller),
            sql.UPDATE_THREAD,
            session=session_id,
            turn=fence,
            guarded=fence is not None,
            **columns,
            **{f"old_{name}": value for name, value in base.items()},
            **{f"set_{name}": value != base[name] for name, value in columns.items()},
            **entry_of(owner_of(caller), thread.title or ""),
        )
        if not written:
            raise NotFound
        if not written[0]["accepted"]:
            fenced = session if fence is not None else None
            await explain_refusal(self._database, owner_of(caller), session_id, fenced=fenced)
        stored = self._remembered(written[0], caller)
        if fence is not None:
            thread.title = stored.title
            thread.status = stored.status
            thread.allowed_image_domains = stored.allowed_image_domains
            thread.metadata = stored.metadata

    @staticmethod
    def _remembered(row: Row, caller: Caller) -> ThreadMetadata:
        thread = rows.load_thread(row)
        request = request_of(caller)
        if request is not None:
            request.thread_bases[thread.id] = rows.thread_columns(thread)
        return thread
