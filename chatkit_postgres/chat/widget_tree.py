"""Walks the tree of a widget: finds a component, the actions that it declares, the marks of streaming."""

import re
from typing import Any

from chatkit.widgets import WidgetRoot

# onClickAction, onSubmitAction and their like; `action` is inside of a card's confirm and cancel.
_DECLARATION = re.compile(r"on[A-Z]\w*Action|action")


def find_component(value: Any, component_id: str) -> dict[str, Any] | None:
    """The component of this id in a widget's tree."""
    if isinstance(value, dict):
        if value.get("id") == component_id:
            return value
        value = list(value.values())
    if isinstance(value, list):
        return next((found for element in value if (found := find_component(element, component_id)) is not None), None)
    return None


def at_rest(value: Any) -> Any:
    """Without the marks of streaming: nobody continues the text of a snapshot."""
    if isinstance(value, dict):
        return {name: at_rest(member) for name, member in value.items() if (name, member) != ("streaming", True)}
    return [at_rest(element) for element in value] if isinstance(value, list) else value


def declares(widget: WidgetRoot, action_type: str) -> bool:
    """Whether a component of the widget declares this action, also one that the page handles first."""
    return action_type in _declared(widget.model_dump())


def _declared(value: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(value, dict):
        for name, member in value.items():
            is_action = isinstance(member, dict) and _DECLARATION.fullmatch(name)
            if not is_action:
                found |= _declared(member)
            else:
                # Its members are a payload, never another declaration.
                found.add(str(member.get("type")))
    elif isinstance(value, list):
        for element in value:
            found |= _declared(element)
    return found
