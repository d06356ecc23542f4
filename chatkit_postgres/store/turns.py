"""The turn ledger: which turn holds a thread's fence, and how each turn ended."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatkit.types import AssistantMessageItem, ClientToolCallItem, StructuredInputItem, ThreadItem, UserMessageItem

from chatkit_postgres.db import Database
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import Conflict, DatabaseUnavailable, Interrupted, NotFound, Unprocessable
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import Caller, StoreContext, owner_of, required_session
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.outcome import Outcome, Settled
from chatkit_postgres.store.refusals import claim_errors, explain_refusal, lost_fence
from chatkit_postgres.store.session import RetryWindow, WriteSession
from chatkit_postgres.store.sql import turns as sql
from chatkit_postgres.store.sql.attachments import DELETE_UNSENT_ATTACHMENTS
from chatkit_postgres.store.sql.limits import RELEASE_TURN
from chatkit_postgres.store.views import claim_of, window_of


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A turn in the ledger. ``thread_id`` is None if the thread was deleted."""

    turn_id: UUID
    session_id: UUID
    thread_id: str | None
    operation: str
    state: str
    error_code: str | None
    request_hash: str | None


class TurnRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_retry(self, thread_id: str, item_id: str, context: StoreContext) -> UserMessageItem:
        """Take the fence for a new answer to a user's message, and return that message.

        The items after it stay until the new answer's first final item replaces them, in one transaction.
        Raises NotFound, ThreadNotActive, or Unprocessable if the item is not a user's message.
        """
        session = required_session(context)
        session_id = session_uuid(thread_id)

        async def work(transaction: Transaction) -> tuple[UserMessageItem, RetryWindow]:
            open_position = await self._take_fence(transaction, thread_id, session, context)
            found = await transaction.run(
                owner_of(context),
                sql.FIND_RETRIED_MESSAGE,
                session=session_id,
                message=message_uuid(session_id, item_id),
            )
            if not found:
                raise NotFound
            item = rows.load_item(found[0], thread_id)
            if not isinstance(item, UserMessageItem):
                raise Unprocessable("params.item_id: only a message of the user can be retried.")
            window = RetryWindow(retry_from=found[0]["position"], open_position=open_position)
            await self._insert_turn(transaction, thread_id, session, context, window)
            return item, window

        with claim_errors(session):
            item, session.retry = await self._database.run_transaction("open_retry", work)
        session.thread_id = thread_id
        session.know(item)
        # The message is added again before it is answered; it must not count as the first item of the answer.
        session.committed[item.id] = rows.item_row(item).digest
        return item

    async def open(self, thread_id: str, context: StoreContext) -> None:
        """Take the fence of a thread for a turn whose first write is no item of its own. Raises NotFound, ThreadLocked
        or ThreadClosed."""
        session = required_session(context)

        async def work(transaction: Transaction) -> None:
            await self._take_fence(transaction, thread_id, session, context)
            await self._insert_turn(transaction, thread_id, session, context, None)

        with claim_errors(session):
            await self._database.run_transaction("open_turn", work)
        session.thread_id = thread_id

    async def settle(
        self, thread_id: str, item: ClientToolCallItem | StructuredInputItem, context: StoreContext
    ) -> None:
        """Write the answer to an item that waits for one, and open the turn with it: of many answers sent at once
        one is accepted. The same answer is accepted again if the turn that accepted it failed.

        Raises Conflict, NotFound, or ThreadNotActive.
        """
        session = required_session(context)
        session_id = session_uuid(thread_id)
        row = rows.item_row(item)
        with claim_errors(session):
            settled = await self._database.run(
                owner_of(context),
                sql.SETTLE_ITEM,
                session=session_id,
                message=message_uuid(session_id, item.id),
                item=row.item,
                content=row.content,
                **item_entry(owner_of(context), item),
                turn=session.turn_id,
                **claim_of(session),
            )
        if not settled:
            raise NotFound
        if not settled[0]["accepted"]:
            if not settled[0]["is_active"]:
                await explain_refusal(self._database, owner_of(context), session_id)
            raise Conflict
        session.previous_turn_id = settled[0]["fence_before"]
        session.thread_id = thread_id
        session.know(item)
        session.committed[item.id] = row.digest

    async def heartbeat(self, context: StoreContext) -> None:
        """Show that the turn's process is alive. Raises Superseded if a newer turn holds the fence, Interrupted if
        maintenance closed the turn, NotFound if the thread is deleted."""
        session = required_session(context)
        if session.thread_id is None:
            return
        beat = await self._database.run(
            owner_of(context), sql.HEARTBEAT, session=session_uuid(session.thread_id), turn=session.turn_id
        )
        if not beat:
            raise NotFound
        if not beat[0]["holds"]:
            raise Interrupted if beat[0]["state"] == "interrupted" else lost_fence(session)

    async def finish(
        self, context: StoreContext, outcome: Outcome, *, unfinished: Iterable[ThreadItem] = ()
    ) -> Settled | None:
        """Write the turn's outcome and its unfinished items, once. Returns None if this call did not write them.

        A turn that never opened has no end. A retry that committed nothing leaves nothing unfinished behind.
        """
        session = required_session(context)
        if session.thread_id is None:
            return None
        session_id = session_uuid(session.thread_id)
        tokens = outcome.tokens_spent(session.tokens_held)
        # A message that no output guardrail has judged is not saved; the statement deletes its drafts.
        is_unjudged = session.awaits_verdict
        to_save = [item for item in unfinished if not (is_unjudged and isinstance(item, AssistantMessageItem))]
        partials = (
            []
            if session.retry is not None
            else [
                rows.row_document(rows.item_row(item), session_id, number) | item_entry(owner_of(context), item)
                for number, item in enumerate(to_save)
            ]
        )
        ended = await self._database.run(
            owner_of(context),
            sql.FINISH_TURN,
            session=session_id,
            turn=session.turn_id,
            hold=str(session.turn_id),
            tokens_spent=tokens,
            state=outcome.state,
            error_code=outcome.error_code,
            usage=rows.dump_json(outcome.usage) if outcome.usage is not None else None,
            sender_name=session.sender_name,
            partials_count=len(partials),
            partials=rows.storable_json(rows.dump_json(partials)),
        )
        if session.made_attachments and outcome.state != "waiting":
            await self._delete_unused_images(session, context)
        return Settled(tokens, ended[0]["tokens_spent"]) if ended else None

    async def _delete_unused_images(self, session: WriteSession, context: StoreContext) -> None:
        """Those that no item holds: the turn was stopped, or failed, after a preview."""
        # Without a database, the clean-up deletes them after a day.
        with suppress(DatabaseUnavailable):
            await self._database.run(
                owner_of(context), DELETE_UNSENT_ATTACHMENTS, attachments=sorted(session.made_attachments)
            )

    async def close_stale(self, thread_id: str, caller: Caller, *, stale_seconds: float) -> "list[ClosedTurn]":
        """Close the turns of a thread whose process died or stalled."""
        return await close_stale_turns(self._database, owner_of(caller), session_uuid(thread_id), stale_seconds)

    async def find(self, idempotency_key: str, caller: Caller) -> LedgerEntry | None:
        """The turn that was opened under this key of the owner's."""
        found = await self._database.run(owner_of(caller), sql.FIND_TURN_BY_KEY, idempotency_key=idempotency_key)
        return LedgerEntry(**found[0]) if found else None

    async def items_of(self, entry: LedgerEntry, caller: Caller) -> list[ThreadItem]:
        """The items that a turn wrote, in order."""
        found = await self._database.run(
            owner_of(caller), sql.LIST_ITEMS_OF_TURN, session=entry.session_id, turn=entry.turn_id
        )
        return [rows.load_item(row, entry.thread_id or "") for row in found]

    async def usage_by_day(self, caller: Caller, *, days: int) -> list[dict[str, Any]]:
        """The last days with turns (UTC, including today), oldest first: ``date``, ``turns``, and the tokens as the
        provider counted them. Turns of deleted threads count."""
        return [dict(row) for row in await self._database.run(owner_of(caller), sql.SUM_USAGE, days=days)]

    @staticmethod
    async def _take_fence(
        transaction: Transaction, thread_id: str, session: WriteSession, context: StoreContext
    ) -> int:
        session_id = session_uuid(thread_id)
        taken = await transaction.run(owner_of(context), sql.TAKE_FENCE, session=session_id, turn=session.turn_id)
        if not taken:
            raise NotFound
        if taken[0]["next_position"] is None:
            await explain_refusal(transaction, owner_of(context), session_id)
        session.previous_turn_id = taken[0]["fence_before"]
        return int(taken[0]["next_position"])

    @staticmethod
    async def _insert_turn(
        transaction: Transaction,
        thread_id: str,
        session: WriteSession,
        context: StoreContext,
        window: RetryWindow | None,
    ) -> None:
        (opened,) = await transaction.run(
            owner_of(context),
            sql.OPEN_TURN,
            session=session_uuid(thread_id),
            turn=session.turn_id,
            **window_of(window),
            **claim_of(session),
        )
        session.closed_calls = opened["closed_calls"]


@dataclass(frozen=True, slots=True)
class ClosedTurn:
    turn_id: UUID
    operation: str


async def close_stale_turns(database: Database, owner: str, session: UUID, stale_seconds: float) -> list[ClosedTurn]:
    """Close the turns of a thread whose process died or stalled, release what they held, and return them."""
    closed = await database.run(owner, sql.CLOSE_STALE_TURNS, session=session, stale_seconds=stale_seconds)
    for turn in closed:
        # If this process dies between the two, maintenance releases it.
        await database.run(owner, RELEASE_TURN, hold=str(turn["turn_id"]))
    return [ClosedTurn(turn["turn_id"], turn["operation"]) for turn in closed]
