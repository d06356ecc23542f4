"""Keeps runs that wait until their user has approved or refused calls of tools, and each call's fate."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

from chatkit.types import WidgetItem

from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import Caller, StoreContext, owner_of, required_session
from chatkit_postgres.store.ids import message_uuid, session_uuid
from chatkit_postgres.store.index_entries import item_entry
from chatkit_postgres.store.refusals import claim_errors, explain_refusal, lost_fence
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import approvals as sql
from chatkit_postgres.store.threads import ThreadSince
from chatkit_postgres.store.tool_calls import MAX_OUTPUT
from chatkit_postgres.store.views import claim_of
from chatkit_postgres.text import clean_text, cut_middle

Verdict = Literal["approved", "refused"]


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A call of a tool that needs its user's approval. ``item_id`` is the item that asks."""

    item_id: str
    number: int
    """Its place among the calls of its run."""
    call_id: str
    agent: str
    tool: str
    label: str
    arguments: str
    is_function: bool = True
    """Whether the Agents SDK reports when the call begins and ends."""
    answer: Verdict | None = None
    answered_by: str | None = None
    begun_by: str | None = None
    """The turn that has begun to run the call; without an output, it is unknown what the call has done."""
    output: str | None = None

    @property
    def may_run(self) -> bool:
        return self.answer == "approved" and self.begun_by is None

    @property
    def is_uncertain(self) -> bool:
        return self.begun_by is not None and self.output is None


@dataclass(frozen=True, slots=True)
class PausedRun:
    asked_by: UUID
    """The turn that asked."""
    resumed_by: UUID | None
    calls: Sequence[AskedCall]
    run_state: str

    def call_of(self, item_id: str) -> AskedCall:
        return next(call for call in self.calls if call.item_id == item_id)


@dataclass(frozen=True, slots=True)
class AbandonedRun:
    owner: str
    thread_id: str
    asked_by: UUID
    claims: Mapping[str, Any]
    is_hopeless: bool
    """Whether several processes have gone on with it, and died."""


class ApprovalRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def pause(self, thread_id: str, run_state: str, calls: Iterable[AskedCall], context: StoreContext) -> None:
        """Save a run with the calls that it asks about.

        Raises Superseded or NotFound; RuntimeError if the turn waits for another run already.
        """
        session = required_session(context)
        documents = {call.item_id: {**asdict(call), "item_id": None} for call in calls}
        paused = await self._database.run(
            owner_of(context),
            sql.PAUSE_RUN,
            session=session_uuid(thread_id),
            turn=session.turn_id,
            run_state=run_state,
            calls=rows.storable_json(rows.dump_json(documents)),
        )
        if not paused:
            raise NotFound
        if not paused[0]["accepted"] and paused[0]["holds"]:
            raise RuntimeError("a turn can wait for one run only")
        if not paused[0]["accepted"]:
            raise lost_fence(session)

    async def find(self, thread_id: str, item_id: str, caller: Caller) -> PausedRun | None:
        """The run that asks by this item; None if the question is closed."""
        found = await self._database.run(
            owner_of(caller), sql.FIND_PAUSED_RUN, session=session_uuid(thread_id), item_id=rows.storable(item_id)
        )
        return paused_run(found[0]) if found else None

    async def answer(
        self, thread_id: str, card: WidgetItem, answer: Verdict, context: StoreContext, claims: Mapping[str, Any]
    ) -> PausedRun | None:
        """Save an answer with the card that shows it, and open the turn. Returns the run, whose ``resumed_by`` is this
        turn if no other call waits for its answer; None if the question was closed or answered meanwhile. ``claims``
        are those of the user, for a process that goes on with the run.

        Raises NotFound, ThreadLocked or ThreadClosed.
        """
        session = required_session(context)
        session_id = session_uuid(thread_id)
        row = rows.item_row(card)
        with claim_errors(session):
            answered = await self._database.run(
                owner_of(context),
                sql.ANSWER_CALL,
                session=session_id,
                turn=session.turn_id,
                item_id=card.id,
                answer=rows.dump_json({"answer": answer, "answered_by": str(session.turn_id)}),
                claims=rows.storable_json(rows.dump_json(dict(claims))),
                message=message_uuid(session_id, card.id),
                item=row.item,
                content=row.content,
                **item_entry(owner_of(context), card),
                **claim_of(session),
            )
        run = await self._opened(thread_id, answered, context)
        if run is not None:
            session.committed[card.id] = row.digest
            session.known_item_ids.update(call.item_id for call in run.calls)
        return run

    async def take_over(self, thread_id: str, asked_by: UUID, context: StoreContext) -> PausedRun | None:
        """Open a turn that goes on with an answered run whose turn was interrupted; None if there is no such run.
        Raises NotFound, ThreadLocked or ThreadClosed."""
        session = required_session(context)
        with claim_errors(session):
            taken = await self._database.run(
                owner_of(context),
                sql.TAKE_OVER_RUN,
                session=session_uuid(thread_id),
                turn=session.turn_id,
                asked_by=asked_by,
                **claim_of(session),
            )
        run = await self._opened(thread_id, taken, context)
        if run is not None:
            session.known_item_ids.update(call.item_id for call in run.calls)
        return run

    async def begin_call(self, thread_id: str, item_id: str, context: StoreContext) -> bool:
        """Whether this turn may run the call now; true once."""
        session = required_session(context)
        begun = await self._database.run(
            owner_of(context),
            sql.BEGIN_CALL,
            session=session_uuid(thread_id),
            turn=session.turn_id,
            item_id=item_id,
        )
        return bool(begun)

    async def end_call(self, thread_id: str, item_id: str, output: str, context: StoreContext) -> None:
        """Save what an approved call has returned."""
        await self._database.run(
            owner_of(context),
            sql.END_CALL,
            session=session_uuid(thread_id),
            turn=required_session(context).turn_id,
            item_id=item_id,
            output=rows.dump_json(cut_middle(clean_text(output), MAX_OUTPUT)),
        )

    async def give_up(self, thread_id: str, asked_by: UUID, caller: Caller) -> list[AskedCall]:
        """Delete a run whose turn was interrupted. Returns its calls."""
        given_up = await self._database.run(
            owner_of(caller), sql.GIVE_UP_RUN, session=session_uuid(thread_id), asked_by=asked_by
        )
        return calls_of(given_up[0]["calls"]) if given_up else []

    async def waiting(self, caller: Caller, *, limit: int) -> list[ThreadSince]:
        """The owner's threads that wait for an answer, the newest question first."""
        found = await self._database.run(owner_of(caller), sql.LIST_WAITING_THREADS, page=limit)
        return [ThreadSince(row["thread_id"], row["since"]) for row in found]

    async def abandoned(self) -> list[AbandonedRun]:
        """Answered runs of all owners whose turn was interrupted; some of them, if there are many."""
        found = await self._database.run_for_all_owners(sql.LIST_ABANDONED_RUNS)
        return [
            AbandonedRun(
                row["user_id"], row["thread_id"], row["turn_id"], json.loads(row["claims"]), row["is_hopeless"]
            )
            for row in found
        ]

    async def _opened(self, thread_id: str, answered: Sequence[Row], context: StoreContext) -> PausedRun | None:
        if not answered:
            raise NotFound
        row, session = answered[0], required_session(context)
        if not row["is_active"]:
            await explain_refusal(self._database, owner_of(context), session_uuid(thread_id))
        if row["turn_id"] is None:
            return None
        session.thread_id = thread_id
        session.previous_turn_id = row["fence_before"]
        return paused_run(row)


def paused_run(row: Row) -> PausedRun:
    """From the columns ``turn_id, resumed_by, calls, run_state``."""
    return PausedRun(row["turn_id"], row["resumed_by"], calls_of(row["calls"]), row["run_state"])


def closed_calls_of(session: WriteSession) -> list[AskedCall]:
    """The calls of earlier runs that this turn has ended, answered or not."""
    runs = json.loads(session.closed_calls) if session.closed_calls is not None else []
    return [call for run in runs for call in _calls(run)]


def calls_of(documents: str) -> list[AskedCall]:
    """From the column ``calls``, in the order of the run."""
    return _calls(json.loads(documents))


def _calls(documents: Mapping[str, Mapping[str, Any]]) -> list[AskedCall]:
    calls = [AskedCall(**{**call, "item_id": item_id}) for item_id, call in documents.items()]
    return sorted(calls, key=lambda call: call.number)
