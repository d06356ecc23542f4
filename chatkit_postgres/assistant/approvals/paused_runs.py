"""Saves a run of the Agents SDK that waits for approvals, and restores it when the answers are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Agent, RunResult, RunResultStreaming, RunState, TResponseInputItem
from agents.items import ToolApprovalItem
from chatkit.agents import ClientToolCall
from chatkit.types import ThreadItem

from chatkit_postgres.assistant.model_input.input_shape import with_plain_answers
from chatkit_postgres.assistant.model_input.less_input import without_images
from chatkit_postgres.assistant.model_input.tool_memory import OpenCalls
from chatkit_postgres.assistant.tools.labels import ToolLabel, arguments_of, label_by, readable
from chatkit_postgres.errors import ApprovalLost, ApprovalTooLarge
from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.store.approvals import AskedCall, PausedRun
from chatkit_postgres.store.ids import new_approval_id
from chatkit_postgres.text import clean_json

MAX_CALLS = 50
"""Questions of one run."""
MAX_STATE = 1_000_000
"""Characters of a saved run."""
REFUSED = "The user has refused this call. It was not run."
NEVER_RUN = "This call was not run."
UNKNOWN = (
    "This call was interrupted while it ran. It is not known whether the call took effect. It was not run again, and "
    "must not be repeated unless the user asks for it anew."
)

logger = get_logger(__name__)

ModelInput = Sequence[TResponseInputItem]
AnyRun = RunResult | RunResultStreaming


@dataclass(frozen=True, slots=True)
class Origin:
    """How a run began: with which agent, and with which model input, made of these items of the thread."""

    agent: str
    item_ids: Sequence[str] | None = None
    model_input: ModelInput = ()


def saved_state(run: AnyRun, origin: Origin, open_calls: OpenCalls, client_calls: Sequence[ClientToolCall]) -> str:
    """The state of a run, without its context. Input that is only the thread's items is left out, and made again from
    them. Raises ApprovalTooLarge."""
    document: dict[str, Any] = run.to_state().to_json(context_serializer=lambda _: {})
    saved: dict[str, Any] = {
        "run": document,
        "agent": origin.agent,
        "current_agent": run.last_agent.name,
        "calls": open_calls,
    }
    saved["client_calls"] = [clean_json({"name": call.name, "arguments": call.arguments}) for call in client_calls]
    if origin.item_ids is not None and _is_unchanged(document["original_input"], origin.model_input):
        saved["items"] = list(origin.item_ids)
        document["original_input"] = []
    text = json.dumps(saved)
    if len(text) > MAX_STATE and isinstance(document["original_input"], list):
        document["original_input"] = without_images(document["original_input"])
        text = json.dumps(saved)
    if len(text) > MAX_STATE:
        raise ApprovalTooLarge
    return text


def _is_unchanged(saved: Any, given: ModelInput) -> bool:
    """Whether a run still has the input that it was given: a handoff may change it. The Agents SDK saves the text of an
    answer in another form."""
    if not isinstance(saved, list) or len(saved) != len(given):
        return False
    return with_plain_answers(saved) == list(given)


class SavedRun:
    """A paused run as it was saved."""

    def __init__(self, paused: PausedRun) -> None:
        saved = json.loads(paused.run_state)
        self.paused = paused
        self.agent: str = saved["agent"]
        """The name of the agent with which the run began."""
        self.current_agent: str = saved["current_agent"]
        self.open_calls: OpenCalls = {call_id: tuple(call) for call_id, call in saved["calls"].items()}
        self.client_calls = [ClientToolCall(**call) for call in saved["client_calls"]]
        """The page is asked when the run has ended."""
        self._item_ids: list[str] | None = saved.get("items")
        self._document: dict[str, Any] = saved["run"]

    def items_of(self, history: Sequence[ThreadItem]) -> Sequence[ThreadItem] | None:
        """The items from which the run's input is made again; None if the input is saved."""
        if self._item_ids is None:
            return None
        ids = set(self._item_ids)
        return [item for item in history if item.id in ids]

    async def restored(self, agent: Agent[Any], model_input: ModelInput | None = None) -> RunState[Any]:
        """The run with the answers of its calls. A call that has run already, or may have run, is not run again: the
        model receives its output, or that it is unknown. Raises ApprovalLost if the agent no longer fits the run."""
        document, calls = self._document, self.paused.calls
        if model_input is not None:
            document["original_input"] = list(model_input)
        # The turn before has counted these tokens.
        document["context"].pop("usage", None)
        try:
            # The caller's context takes the place of this one.
            state = await RunState.from_json(agent, document, context_override={})
            for call, asked in zip(calls, _interruptions(state, calls), strict=True):
                _decide(state, call, asked)
        except Exception as error:
            logger.warning("paused_run_not_restored", **failure(error))
            raise ApprovalLost from error
        return state


def _interruptions(state: RunState[Any], calls: Sequence[AskedCall]) -> list[ToolApprovalItem]:
    """The run's questions in the order of the calls. Raises ValueError if they are others."""
    found = state.get_interruptions()
    if [item.call_id for item in found] != [call.call_id for call in calls]:
        raise ValueError("the run asks about other calls")
    return found


def _decide(state: RunState[Any], call: AskedCall, asked: ToolApprovalItem) -> None:
    if call.may_run:
        state.approve(asked)
    else:
        state.reject(asked, rejection_message=_output_of(call))


def _output_of(call: AskedCall) -> str:
    if call.output is not None:
        return call.output
    if call.is_uncertain:
        return UNKNOWN
    return REFUSED if call.answer == "refused" else NEVER_RUN


def asked_calls(run: AnyRun, label: ToolLabel) -> Sequence[AskedCall]:
    """The calls that a run asks about, each with the id of a new item. Raises ApprovalTooLarge for too many."""
    if len(run.interruptions) > MAX_CALLS:
        raise ApprovalTooLarge
    return [_asked_call(number, asked, label) for number, asked in enumerate(run.interruptions)]


def _asked_call(number: int, asked: ToolApprovalItem, label: ToolLabel) -> AskedCall:
    name = asked.qualified_name or asked.name or "tool"
    raw = asked.raw_item
    kind = raw.get("type") if isinstance(raw, Mapping) else getattr(raw, "type", None)
    return AskedCall(
        item_id=new_approval_id(),
        number=number,
        call_id=asked.call_id or "",
        agent=asked.agent.name,
        tool=name,
        label=label_by(label, name, arguments_of(asked.arguments)) or readable(name),
        arguments=asked.arguments or "{}",
        is_function=kind == "function_call",
    )
