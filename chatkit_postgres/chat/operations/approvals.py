"""Answers the questions of a run that waits for approvals, and goes on with the run after the last answer."""

from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from uuid import UUID

from chatkit.types import (
    ThreadCustomActionParams,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot
from pydantic import ValidationError

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.approvals import Decision
from chatkit_postgres.assistant.approvals.asking import card_of
from chatkit_postgres.assistant.approvals.requests import SENTENCES, State, is_answered, state_of
from chatkit_postgres.chat.merge import LiveContext, Respond
from chatkit_postgres.chat.wire import is_hidden
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ApprovalLost, ChatError, ModelMistaken, NotFound, Unprocessable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore, rows
from chatkit_postgres.store.approvals import AskedCall, PausedRun, Verdict, closed_calls_of
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.ids import APPROVAL_PREFIX
from chatkit_postgres.validation import first_problem

MAX_ITEMS_AFTER = 50
"""Items that are sent to a reader who answers a question that is answered already."""


logger = get_logger(__name__)


class Approvals:
    def __init__(self, store: DatabaseStore, assistant: Assistant, respond: Respond) -> None:
        self._store = store
        self._assistant = assistant
        self._respond = respond

    async def answer(self, thread: ThreadMetadata, params: ThreadCustomActionParams, context: RequestContext) -> Events:
        """Save an answer, and return the events that follow: of the run, after its last answer. An answer to a question
        that is closed opens no turn; its events show what there is. Raises NotFound, Unprocessable, ThreadLocked or
        ThreadClosed."""
        card = await self._question_card(params, context)
        answer = _answer_of(params)
        live = LiveContext.of(thread, self._store, context)
        run = await self._store.approvals.find(thread.id, card.id, context)
        if run is not None and run.call_of(card.id).answer is None:
            answered = card_of(run.call_of(card.id), answer, live, self._assistant.approval_card, card)
            saved = await self._store.approvals.answer(thread.id, answered, answer, context, context.claims)
            if saved is not None and saved.resumed_by == required_session(context).turn_id:
                return self._resumed(saved, live, [answered])
            if saved is not None:
                return _replaced([answered])
        elif run is not None and run.resumed_by is not None:
            events = await self.resume(thread, run.asked_by, context)
            if events is not None:
                return events
        return await self._as_it_is(card, context)

    async def resume(self, thread: ThreadMetadata, asked_by: UUID, context: RequestContext) -> Events | None:
        """The events of an answered run whose turn was interrupted; None if another turn goes on with it."""
        run = await self._store.approvals.take_over(thread.id, asked_by, context)
        if run is None:
            return None
        live = LiveContext.of(thread, self._store, context)
        return self._resumed(run, live, await self._cards(run.calls, live, _state_before))

    async def close_questions(self, thread: ThreadMetadata, context: RequestContext) -> Sequence[ThreadStreamEvent]:
        """Show on their cards that the questions are void which waited when this turn opened."""
        calls = closed_calls_of(required_session(context))
        cards = await self._show(calls, LiveContext.of(thread, self._store, context)) if calls else ()
        return [ThreadItemReplacedEvent(item=card) for card in cards]

    async def give_up(self, thread: ThreadMetadata, asked_by: UUID, context: RequestContext) -> bool:
        """End an answered run whose turn was interrupted. False if another process was faster."""
        calls = await self._store.approvals.give_up(thread.id, asked_by, context)
        await self._show(calls, LiveContext.of(thread, self._store, context))
        return bool(calls)

    async def _question_card(self, params: ThreadCustomActionParams, context: RequestContext) -> WidgetItem:
        if params.item_id is not None:
            item = await self._store.load_item(params.thread_id, params.item_id, context)
            if isinstance(item, WidgetItem) and item.id.startswith(APPROVAL_PREFIX):
                return item
        raise Unprocessable("params.item_id: this item does not ask for an approval.")

    async def _resumed(self, run: PausedRun, live: LiveContext, cards: Sequence[WidgetItem]) -> Events:
        notes = live.request_context.history_notes
        notes.paused_run = run
        for card in cards:
            yield ThreadItemReplacedEvent(item=card)
        try:
            async with aclosing(self._respond(live, None)) as events:
                async for event in events:
                    yield event
            _check_taken(live.request_context)
        except BaseException as error:
            left = []
            with suppress(ChatError):
                left = await self._show_ends(run, live)
            if isinstance(error, ModelMistaken) and any(state_of(call) == "not_run" for call in left):
                # The agent has no such tool any more.
                raise ApprovalLost from error
            raise

    async def _show_ends(self, run: PausedRun, live: LiveContext) -> list[AskedCall]:
        """Show on their cards that approved calls were not run, or not to their end. Returns these calls."""
        now = await self._store.approvals.find(live.thread.id, run.calls[0].item_id, live.request_context)
        left = [call for call in now.calls if state_of(call) in {"not_run", "unknown"}] if now is not None else []
        await self._show(left, live)
        return left

    async def _show(self, calls: Sequence[AskedCall], live: LiveContext) -> Sequence[WidgetItem]:
        """Save on the cards of calls where these stand. No write of this turn: it may have lost its thread, and in a
        retry such a write would replace the old answer."""
        cards = await self._cards(calls, live, state_of)
        for card in cards:
            await self._store.items.change(live.thread.id, card, live.request_context)
        return cards

    async def _cards(
        self, calls: Sequence[AskedCall], live: LiveContext, state: Callable[[AskedCall], State]
    ) -> list[WidgetItem]:
        """The items of the questions that still exist."""
        cards = []
        for call in calls:
            with suppress(NotFound):
                item = await self._store.load_item(live.thread.id, call.item_id, live.request_context)
                if isinstance(item, WidgetItem):
                    cards.append(card_of(call, state(call), live, self._assistant.approval_card, item))
        return cards

    async def _as_it_is(self, card: WidgetItem, context: RequestContext) -> Events:
        """The card and the items after it as they are stored, for a reader who does not know them."""
        thread_id = card.thread_id
        is_closed = await self._store.approvals.find(thread_id, card.id, context) is None
        stored = await self._store.load_item(thread_id, card.id, context)
        if is_closed and isinstance(stored, WidgetItem) and not is_answered(stored):
            stored = _closed(stored)
            await self._store.items.change(thread_id, stored, context)
        page = await self._store.items.load_page(thread_id, card.id, MAX_ITEMS_AFTER, "asc", context, hidden=False)
        session = required_session(context)
        items = [stored, *(item for item in page.data if not is_hidden(item))]
        # Nothing is saved again.
        session.committed |= {item.id: rows.item_row(item).digest for item in items}
        session.know(*items)
        return _as_stored(items)


async def _replaced(cards: Sequence[WidgetItem]) -> Events:
    for card in cards:
        yield ThreadItemReplacedEvent(item=card)


async def _as_stored(items: Sequence[ThreadItem]) -> Events:
    first, *others = items
    yield ThreadItemReplacedEvent(item=first)
    for item in others:
        yield ThreadItemDoneEvent(item=item)


def _check_taken(context: RequestContext) -> None:
    """Raises ApprovalLost if the assistant has not gone on with the run."""
    if context.history_notes.paused_run is not None:
        logger.error("paused_run_not_taken", cure="respond() runs the agent that asked, with Runner")
        raise ApprovalLost


def _answer_of(params: ThreadCustomActionParams) -> Verdict:
    try:
        decision = Decision.model_validate(params.action.payload)
    except ValidationError as error:
        problem = first_problem(error)
        raise Unprocessable(f"{problem.path('params.action.payload')}: {problem.message}.") from None
    return "approved" if decision.approve else "refused"


def _state_before(call: AskedCall) -> State:
    """Where a call stands before its run goes on."""
    state = state_of(call)
    return "approved" if state == "not_run" else state


def _closed(card: WidgetItem) -> WidgetItem:
    """A card whose question can no longer be answered, and whose run is not known any more."""
    text = {"type": "Text", "value": f"{card.copy_text or ''} {SENTENCES['not_answered']}".strip()}
    widget = DynamicWidgetRoot.model_validate({"type": "Card", "size": "sm", "children": [text]})
    return card.model_copy(update={"widget": widget, "copy_text": text["value"]})
