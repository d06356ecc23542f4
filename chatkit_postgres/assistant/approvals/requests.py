"""The question whether a tool may be called, and the card that asks it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chatkit.actions import ActionConfig
from chatkit.types import WidgetItem
from chatkit.widgets import DynamicWidgetRoot, WidgetRoot
from pydantic import BaseModel

from chatkit_postgres.assistant.tools.labels import arguments_of, readable
from chatkit_postgres.store.approvals import AskedCall
from chatkit_postgres.text import cut_middle

APPROVAL_ACTION = "chatkit_postgres.approval"
"""The type of the action that the buttons of a card send."""
MAX_SHOWN = 2000
"""Characters of an argument."""
MAX_NAME = 100
MAX_ARGUMENTS = 30

State = Literal["waiting", "approved", "refused", "not_answered", "not_run", "unknown"]

SENTENCES: Mapping[str, str] = {
    "waiting": "",
    "approved": "Approved.",
    "refused": "Refused. It was not done.",
    "not_answered": "Not answered. It was not done.",
    "not_run": "Approved, but it was not done. You can ask for it again.",
    "unknown": "It is not known whether this was done, because it was interrupted in the middle. "
    "It was not done a second time. You can ask for it again.",
}


class Decision(BaseModel):
    """The payload of the action."""

    approve: bool


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A call of a tool that a person must approve. ``state`` is where the question stands: ``not_answered`` if the
    user wrote a new message instead, ``not_run`` if the turn ended before the approved call began, ``unknown`` if it
    ended in the middle of the call."""

    agent: str
    """The name of the agent that wants to call the tool."""
    tool: str
    label: str
    """The readable name of the call: that of ``tool_label``."""
    arguments: Mapping[str, Any]
    state: State = "waiting"

    @property
    def approve(self) -> ActionConfig:
        """The action of a button that approves."""
        return _action(approve=True)

    @property
    def refuse(self) -> ActionConfig:
        """The action of a button that refuses."""
        return _action(approve=False)

    @property
    def text(self) -> str:
        """The question and its answer, for the model, the clipboard and the search."""
        asked = f"{self.agent} asks: {self.label}? {json.dumps(self.arguments, ensure_ascii=False)}"
        return f"{cut_middle(asked, MAX_SHOWN)} {SENTENCES[self.state]}".strip()


def approval_card(request: ApprovalRequest) -> WidgetRoot:
    """Who wants to do what with which arguments, with two buttons while the question waits."""
    children: list[dict[str, Any]] = [
        {"type": "Caption", "value": f"{request.agent} asks for your approval"},
        {"type": "Title", "value": request.label, "size": "sm"},
        *({"type": "Text", "value": line} for line in _lines(request.arguments)),
    ]
    if request.state == "waiting":
        children.append(
            {
                "type": "Row",
                "children": [
                    _button("Approve", request.approve, style="primary"),
                    _button("Refuse", request.refuse, variant="outline"),
                ],
            }
        )
    else:
        children.append({"type": "Text", "value": SENTENCES[request.state], "weight": "semibold"})
    return DynamicWidgetRoot.model_validate(
        {"type": "Card", "size": "sm", "children": [{"type": "Col", "gap": 2, "children": children}]}
    )


def is_answered(card: WidgetItem) -> bool:
    """Whether a stored card shows where its question ended, whatever a team's card looks like."""
    return (card.copy_text or "").endswith(tuple(filter(None, SENTENCES.values())))


def request_of(call: AskedCall, state: State) -> ApprovalRequest:
    return ApprovalRequest(
        agent=call.agent, tool=call.tool, label=call.label, arguments=arguments_of(call.arguments), state=state
    )


def state_of(call: AskedCall) -> State:
    """Where a call stands when nothing more will be done about it."""
    if call.is_uncertain:
        return "unknown"
    match call.answer:
        case "refused":
            return "refused"
        case "approved":
            return "not_run" if call.may_run else "approved"
        case None:
            return "not_answered"


def _lines(arguments: Mapping[str, Any]) -> list[str]:
    alike = Counter(readable(name).lower() for name in arguments)
    lines = []
    for name, value in [*arguments.items()][:MAX_ARGUMENTS]:
        words = readable(name)
        # A person decides by them: two names that read alike stay as they are.
        shown = words if words and alike[words.lower()] == 1 else name
        lines.append(f"{cut_middle(shown, MAX_NAME)}: {_shown(value)}")
    left_out = len(arguments) - len(lines)
    return [*lines, f"[{left_out} more arguments are left out here]"] if left_out else lines


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut_middle(text, MAX_SHOWN)


def _action(*, approve: bool) -> ActionConfig:
    return ActionConfig(type=APPROVAL_ACTION, payload={"approve": approve}, loadingBehavior="container")


def _button(label: str, on_click: ActionConfig, **more: str) -> dict[str, Any]:
    return {"type": "Button", "label": label, "onClickAction": on_click.model_dump(), **more}
