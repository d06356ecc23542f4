"""Registers the handlers of widget actions."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from chatkit.agents import AgentContext
from chatkit.types import ThreadItem, ThreadStreamEvent, WidgetItem
from chatkit.widgets import WidgetRoot
from pydantic import TypeAdapter

from chatkit_postgres.assistant.hooks import takes
from chatkit_postgres.context import RequestContext

ActionResult = WidgetRoot | ThreadItem | None
"""The new state of the widget that was used, or of another item; None if nothing has changed."""

# Called with the payload, the widget that was used (None for a free action without one), and the context.
Handler = Callable[
    [Any, WidgetItem | None, AgentContext[RequestContext]],
    Awaitable[ActionResult] | AsyncGenerator[ThreadStreamEvent, None],
]
F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__chatkit_action__"


@dataclass(frozen=True)
class ActionRules:
    type: str
    payload: TypeAdapter[Any]
    is_free: bool = False
    """May be sent without a widget that declares it."""
    may_lack_sender: bool = False
    """May be sent without any widget; the handler sees that there is none."""


@dataclass(frozen=True)
class RegisteredAction:
    rules: ActionRules
    handle: Handler
    handle_at_once: Handler | None = None
    """The handler of ``threads.sync_custom_action``, if it is another function."""


def action(action_type: str, payload: Any = Any, *, free: bool = False) -> Callable[[F], F]:
    """Mark a method of an Assistant, or a function given to AgentAssistant, as the handler of an action.

    The handler is called with ``(payload, sender, context)``. A coroutine function returns the new state of the widget,
    which is saved and sent; an async generator yields events like an answer, and handles streaming actions only.
    ``payload`` is a type that pydantic validates, because a client can send any payload. An action that no widget of
    the thread declares is refused, unless ``free`` is true. Raises TypeError for a function that cannot be called so.
    """

    def mark(function: F) -> F:
        if inspect.isfunction(function) and not hasattr(function, "__wrapped__"):
            if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
                raise TypeError(f"the action {action_type!r} needs an async function: async def {function.__name__}")
            is_method = next(iter(inspect.signature(function).parameters), None) == "self"
            if not takes(function, 4 if is_method else 3):
                raise TypeError(f"the action {action_type!r} is called with (payload, sender, context)")
        setattr(function, _MARK, ActionRules(action_type, TypeAdapter(payload), free))
        return function

    return mark


def rules_of(function: Any) -> ActionRules | None:
    found = getattr(function, _MARK, None)
    return found if isinstance(found, ActionRules) else None
