"""Threads: saved by the fields that a request changed, listed by the database's clock."""

from collections.abc import Mapping
from typing import Any

from chatkit.types import Page, ThreadMetadata

from chatkit_postgres.db import Database, Row
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import AttachmentUnavailable, NotFound
from chatkit_postgres.store import cursors, rows
from chatkit_postgres.store.ids import owner_uuid, session_uuid
from chatkit_postgres.store.scope import (
    bases_of,
    claim_errors,
    claim_of,
    claims_of,
    clamped,
    lost_fence,
    owner_of,
    turn_of,
)
from chatkit_postgres.store.sql import threads as sql

CREATE = "threads.create"


class ThreadRows:
    database: Database

    async def load_thread(self, thread_id: str, context: Any) -> ThreadMetadata:
        """Raises NotFound if it is absent or somebody else's."""
        found = await self.database.run(owner_of(context), sql.LOAD_THREAD, session=session_uuid(thread_id))
        if not found:
            raise NotFound
        return self._remembered(found[0], context)

    async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
        """Write the fields that differ from what this request loaded or last saved; insert a thread it has not.

        Inside a turn a field is written only where the row still says what the turn started from, and the given
        object is then brought up to date with the row, so that what the SDK announces next is what is stored.
        A context that remembers nothing writes all fields.

        Raises NotFound if the thread was deleted meanwhile, Superseded if a newer turn owns it, AttachmentUnavailable
        if the message that begins the thread has an attachment that cannot be sent.
        """
        bases = bases_of(context)
        base = bases.get(thread.id) if bases is not None else None
        if base is None:
            await self._insert_thread(thread, context)
        elif base != rows.thread_columns(thread):
            await self._update_thread(thread, base, context)

    async def load_threads(
        self, limit: int | None, after: str | None, order: str, context: Any
    ) -> Page[ThreadMetadata]:
        """The owner's threads by creation. ``after`` is a page's ``after``, whose thread may be gone by now, or the id
        of a thread. Raises NotFound if it is neither."""
        size = clamped(limit)
        owner = owner_of(context)
        list_id = owner_uuid(owner)
        cursor = cursors.decode(list_id, after) if after else None
        found = await self.database.run(
            owner,
            sql.LIST_THREADS_OLDEST_FIRST if order == "asc" else sql.LIST_THREADS_NEWEST_FIRST,
            after=session_uuid(cursor.row_id) if cursor is not None else None,
            after_time=cursors.time_at(cursor.place) if cursor is not None else None,
            page=size + 1,
        )
        if after and found[0]["found"] is None:
            raise NotFound
        threads = [self._remembered(row, context) for row in found if row["thread_id"] is not None]
        has_more = len(threads) > size
        del threads[size:]
        next_page = None
        if has_more:
            next_page = cursors.encode(list_id, threads[-1].id, cursors.place_of(found[size - 1]["created_at"]))
        return Page(data=threads, has_more=has_more, after=next_page)

    async def delete_thread(self, thread_id: str, context: Any) -> None:
        """The thread, its items and feedback; attachments are marked for removal. Raises NotFound."""
        session = session_uuid(thread_id)

        async def work(transaction: Transaction) -> bool:
            await transaction.run(owner_of(context), sql.LOCK_THREAD, session=session)
            return bool(await transaction.run(owner_of(context), sql.DELETE_THREAD, session=session))

        if not await self.database.run_transaction("delete_thread", work):
            raise NotFound

    async def _insert_thread(self, thread: ThreadMetadata, context: Any) -> None:
        turn = turn_of(context)
        opens = turn is not None and not turn.is_open and turn.operation == CREATE
        sent = list(turn.attachments) if turn is not None and opens else []
        with claim_errors(turn):
            inserted = await self.database.run(
                owner_of(context),
                sql.INSERT_THREAD_WITH_ATTACHMENTS if sent else sql.INSERT_THREAD,
                session=session_uuid(thread.id),
                thread_id=rows.storable(thread.id),
                turn=turn.id if turn else None,
                opens=opens,
                claims=rows.storable_json(rows.dump_json(claims)) if (claims := claims_of(context)) else None,
                **claim_of(turn),
                **rows.thread_columns(thread),
                **({"attachments": sent} if sent else {}),
            )
        if not inserted:
            raise AttachmentUnavailable
        if turn is not None and opens:
            turn.thread_id = thread.id
        self._remembered(inserted[0], context)

    async def _update_thread(self, thread: ThreadMetadata, base: Mapping[str, str | None], context: Any) -> None:
        turn = turn_of(context, thread.id)
        fence = turn.id if turn is not None and turn.is_open else None
        columns = rows.thread_columns(thread)
        written = await self.database.run(
            owner_of(context),
            sql.UPDATE_THREAD,
            session=session_uuid(thread.id),
            turn=fence,
            guarded=fence is not None,
            **columns,
            **{f"old_{name}": value for name, value in base.items()},
            **{f"set_{name}": value != base[name] for name, value in columns.items()},
        )
        if not written:
            raise NotFound
        if not written[0]["accepted"]:
            # Refused by the fence, or deleted while this statement waited for it.
            await self.load_thread(thread.id, context)
            raise lost_fence(turn)
        stored = self._remembered(written[0], context)
        if fence is not None:
            thread.title = stored.title
            thread.status = stored.status
            thread.allowed_image_domains = stored.allowed_image_domains
            thread.metadata = stored.metadata

    @staticmethod
    def _remembered(row: Row, context: Any) -> ThreadMetadata:
        thread = rows.load_thread(row)
        bases = bases_of(context)
        if bases is not None:
            bases[thread.id] = rows.thread_columns(thread)
        return thread
