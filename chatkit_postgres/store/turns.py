"""The turn ledger: which turn holds a thread's fence, and how each turn ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn
from uuid import UUID

from chatkit.types import AssistantMessageItem, ClientToolCallItem, StructuredInputItem, ThreadItem, UserMessageItem

from chatkit_postgres.context import RequestContext, RetryWindow, Turn
from chatkit_postgres.db import Database
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import Conflict, Interrupted, NotFound, ThreadNotActive, Unprocessable
from chatkit_postgres.store import rows
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.scope import check_active, claim_errors, claim_of, lost_fence, owner_of
from chatkit_postgres.store.sql import turns as sql
from chatkit_postgres.store.sql.threads import LOAD_THREAD

EndState = Literal["completed", "failed", "stopped", "superseded", "interrupted"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A turn as the ledger knows it. ``thread_id`` is None if the thread was deleted meanwhile."""

    turn_id: UUID
    session_id: UUID
    thread_id: str | None
    operation: str
    state: str
    error_code: str | None
    request_hash: str | None


class TurnRows:
    database: Database

    async def open_retry(self, thread_id: str, item_id: str, context: RequestContext) -> UserMessageItem:
        """Take the fence for a new answer to a user's message, and return that message.

        What came after it stays until the new answer's first final item replaces it, in one transaction.
        Raises NotFound, ThreadNotActive, or Unprocessable if the item is not a user's message.
        """
        turn = _turn(context)
        session = session_uuid(thread_id)

        async def work(transaction: Transaction) -> tuple[UserMessageItem, RetryWindow]:
            open_position = await self._take_fence(transaction, thread_id, turn, context)
            found = await transaction.run(
                owner_of(context),
                sql.FIND_RETRIED_MESSAGE,
                session=session,
                message=message_uuid(session, item_id),
            )
            if not found:
                raise NotFound
            item = rows.load_item(found[0], thread_id)
            if not isinstance(item, UserMessageItem):
                raise Unprocessable("params.item_id: only a message of the user can be retried.")
            window = RetryWindow(retry_from=found[0]["position"], open_position=open_position)
            await self._enter(transaction, thread_id, turn, context, window)
            return item, window

        with claim_errors(turn):
            item, turn.retry = await self.database.run_transaction("open_retry", work)
        turn.thread_id = thread_id
        turn.known_item_ids.add(item.id)
        # The SDK and we hand the message to the store again; it must not count as the first item of the answer.
        turn.committed[item.id] = rows.item_row(item).digest
        return item

    async def open_turn(self, thread_id: str, context: RequestContext) -> None:
        """Take the fence of a thread for a turn that writes no item of its own first. Raises NotFound, ThreadLocked
        or ThreadClosed."""
        turn = _turn(context)

        async def work(transaction: Transaction) -> None:
            await self._take_fence(transaction, thread_id, turn, context)
            await self._enter(transaction, thread_id, turn, context, None)

        with claim_errors(turn):
            await self.database.run_transaction("open_turn", work)
        turn.thread_id = thread_id

    async def settle_item(
        self, thread_id: str, item: ClientToolCallItem | StructuredInputItem, context: RequestContext
    ) -> None:
        """Write the answer to an item that waits for one, and open the turn with it: of many answers sent at once
        one is accepted. The same answer is accepted again if the turn that took it came to nothing.

        Raises Conflict, NotFound, or ThreadNotActive.
        """
        turn = _turn(context)
        session = session_uuid(thread_id)
        row = rows.item_row(item)
        with claim_errors(turn):
            settled = await self.database.run(
                owner_of(context),
                sql.SETTLE_ITEM,
                session=session,
                message=message_uuid(session, item.id),
                item=row.item,
                turn=turn.id,
                **claim_of(turn),
            )
        if not settled:
            raise NotFound
        if not settled[0]["accepted"]:
            if not settled[0]["is_active"]:
                await self._refuse_inactive(thread_id, context)
            raise Conflict
        turn.found_fence_of = settled[0]["fence_before"]
        turn.thread_id = thread_id
        turn.known_item_ids.add(item.id)
        turn.committed[item.id] = row.digest
        turn.answered = item

    async def heartbeat(self, context: RequestContext) -> None:
        """Show that the turn's process lives. Raises Superseded if a newer turn has its thread, Interrupted
        if somebody took it for dead, NotFound if the thread is gone."""
        turn = _turn(context)
        if turn.thread_id is None:
            return
        beat = await self.database.run(
            owner_of(context), sql.HEARTBEAT, session=session_uuid(turn.thread_id), turn=turn.id
        )
        if not beat:
            raise NotFound
        if not beat[0]["holds"]:
            raise Interrupted if beat[0]["state"] == "interrupted" else lost_fence(turn)

    async def finish_turn(
        self, context: RequestContext, state: EndState, *, unfinished: Iterable[ThreadItem] = ()
    ) -> bool:
        """Write the turn's end and its unfinished messages, once; whether this call was the one that did.

        A turn that never opened has no end. A retry that committed nothing leaves nothing unfinished behind.
        """
        turn = _turn(context)
        if turn.thread_id is None:
            return False
        session = session_uuid(turn.thread_id)
        # An answer that no output guardrail has judged is not kept; what is saved of it are drafts, which go.
        kept = [item for item in unfinished if not (turn.awaits_verdict and isinstance(item, AssistantMessageItem))]
        partials = [] if turn.retry is not None else [rows.item_row(item) for item in kept]
        ended = await self.database.run(
            owner_of(context),
            sql.FINISH_TURN,
            session=session,
            turn=turn.id,
            state=state,
            error_code=turn.error_code,
            usage=rows.dump_json(turn.usage) if turn.usage is not None else None,
            sender_name=turn.sender_name,
            partials_count=len(partials),
            partials=rows.partials_json(partials, session),
        )
        return bool(ended)

    async def close_stale_turns(self, thread_id: str, context: RequestContext, *, stale_seconds: float) -> None:
        """Close the turns of a thread whose process died or stalled."""
        await self.database.run(
            owner_of(context),
            sql.CLOSE_STALE_TURNS,
            session=session_uuid(thread_id),
            stale_seconds=stale_seconds,
        )

    async def find_turn(self, idempotency_key: str, context: RequestContext) -> LedgerEntry | None:
        """The turn that was opened under this key of the owner's."""
        found = await self.database.run(owner_of(context), sql.FIND_TURN_BY_KEY, idempotency_key=idempotency_key)
        return LedgerEntry(**found[0]) if found else None

    async def items_of_turn(self, entry: LedgerEntry, context: RequestContext) -> list[ThreadItem]:
        """What a turn wrote, in order."""
        found = await self.database.run(
            owner_of(context), sql.LIST_ITEMS_OF_TURN, session=entry.session_id, turn=entry.turn_id
        )
        return [rows.load_item(row, entry.thread_id or "") for row in found]

    async def usage_by_day(self, context: Any, *, days: int) -> list[dict[str, Any]]:
        """Of the last days (UTC, with today), those with turns, oldest first: ``date``, ``turns``, and the tokens as
        the provider counted them. Turns of deleted threads count."""
        return [dict(row) for row in await self.database.run(owner_of(context), sql.SUM_USAGE, days=days)]

    async def _refuse_inactive(self, thread_id: str, context: RequestContext) -> NoReturn:
        found = await self.database.run(owner_of(context), LOAD_THREAD, session=session_uuid(thread_id))
        if not found:
            raise NotFound
        check_active(rows.load_thread(found[0]))
        raise ThreadNotActive

    @staticmethod
    async def _take_fence(transaction: Transaction, thread_id: str, turn: Turn, context: RequestContext) -> int:
        taken = await transaction.run(owner_of(context), sql.TAKE_FENCE, session=session_uuid(thread_id), turn=turn.id)
        if not taken:
            raise NotFound
        if taken[0]["next_position"] is None:
            # Refused by its status, or deleted while this statement waited for it.
            found = await transaction.run(owner_of(context), LOAD_THREAD, session=session_uuid(thread_id))
            if not found:
                raise NotFound
            check_active(rows.load_thread(found[0]))
            raise ThreadNotActive
        turn.found_fence_of = taken[0]["fence_before"]
        return int(taken[0]["next_position"])

    @staticmethod
    async def _enter(
        transaction: Transaction, thread_id: str, turn: Turn, context: RequestContext, window: RetryWindow | None
    ) -> None:
        await transaction.run(
            owner_of(context),
            sql.OPEN_TURN,
            session=session_uuid(thread_id),
            turn=turn.id,
            retry_from=window.retry_from if window is not None else None,
            open_position=window.open_position if window is not None else None,
            **claim_of(turn),
        )


def _turn(context: RequestContext) -> Turn:
    if context.turn is None:
        raise TypeError("this context has no turn")
    return context.turn
