"""Asks for the approvals that a run has stopped for."""

from collections.abc import Callable, Sequence
from datetime import datetime

from chatkit.agents import AgentContext, ClientToolCall
from chatkit.types import WidgetItem
from chatkit.widgets import WidgetRoot

from chatkit_postgres.assistant.answer_store import store_of
from chatkit_postgres.assistant.approvals.paused_runs import AnyRun, Origin, asked_calls, saved_state
from chatkit_postgres.assistant.approvals.requests import ApprovalRequest, State, approval_card, request_of
from chatkit_postgres.assistant.model_input.tool_memory import ToolMemory
from chatkit_postgres.assistant.tools.labels import ToolLabel
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.store.approvals import AskedCall

MakeCard = Callable[[ApprovalRequest, AgentContext[RequestContext]], WidgetRoot]

logger = get_logger(__name__)


async def ask(
    run: AnyRun,
    context: AgentContext[RequestContext],
    origin: Origin,
    *,
    label: ToolLabel,
    make_card: MakeCard,
    memory: ToolMemory | None = None,
    client_calls: Sequence[ClientToolCall] = (),
) -> Sequence[WidgetItem]:
    """Save the run and the items that ask, and return these. The turn ends as ``waiting``. Raises ApprovalTooLarge."""
    request, calls = context.request_context, asked_calls(run, label)
    state = saved_state(run, origin, memory.open_calls if memory is not None else {}, client_calls)
    await store_of(context).approvals.pause(context.thread.id, state, calls, request)
    if request.session is not None:
        request.session.known_item_ids.update(call.item_id for call in calls)
    cards = [card_of(call, "waiting", context, make_card) for call in calls]
    # All of them before the first is sent: its answer may be faster than the second.
    for card in cards:
        await context.store.add_thread_item(context.thread.id, card, request)
    request.outcome.state = "waiting"
    return cards


def card_of(
    call: AskedCall,
    state: State,
    context: AgentContext[RequestContext],
    make_card: MakeCard,
    before: WidgetItem | None = None,
) -> WidgetItem:
    """The item of a question; ``before`` is the item as it was."""
    request = request_of(call, state)
    try:
        card = make_card(request, context)
    except Exception as error:  # noqa: BLE001 - a team's code; the question is asked all the same
        logger.warning("approval_card_failed", tool=request.tool, **failure(error))
        card = approval_card(request)
    return WidgetItem(
        id=call.item_id,
        thread_id=context.thread.id,
        created_at=before.created_at if before is not None else datetime.now(),  # noqa: DTZ005 - as the SDK's own
        widget=card,
        copy_text=request.text,
    )
