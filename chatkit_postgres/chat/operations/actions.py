"""Checks widget actions: the assistant must know the action's type, and a widget of the thread must declare it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from chatkit.actions import Action
from chatkit.types import (
    ThreadCustomActionParams,
    ThreadItem,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    WidgetItem,
)
from pydantic import BaseModel, TypeAdapter, ValidationError

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.actions import ActionResult, ActionRules, RegisteredAction
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.chat.widget_tree import declares
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.validation import first_problem

_items: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


class CheckedAction:
    """An action with its handler and its validated payload."""

    def __init__(self, registered: RegisteredAction, payload: Any, sender: WidgetItem | None) -> None:
        self._registered = registered
        self._payload = payload
        self.sender = sender

    def events(self, context: LiveContext) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The events that the handler yields or streams through the context; an item that it returns is a
        ``ThreadItemReplacedEvent``."""
        return context.queue.merge(self._handled(context))

    async def outcome(self, context: LiveContext) -> ThreadItem | None:
        """The item that changed. Raises Unprocessable if the handler answers with a stream."""
        handle = self._registered.handle_at_once or self._registered.handle
        started = handle(self._payload, self.sender, context)
        if isinstance(started, AsyncGenerator):
            await started.aclose()
            raise Unprocessable("params.action.type: this action answers with a stream; send threads.custom_action.")
        return self._changed(await started)

    async def _handled(self, context: LiveContext) -> AsyncGenerator[ThreadStreamEvent, None]:
        started = self._registered.handle(self._payload, self.sender, context)
        if isinstance(started, AsyncGenerator):
            async with aclosing(started):
                async for event in started:
                    yield event
        elif (changed := self._changed(await started)) is not None:
            yield ThreadItemReplacedEvent(item=changed)

    def _changed(self, outcome: ActionResult) -> ThreadItem | None:
        if outcome is None:
            return None
        if self.sender is not None and isinstance(outcome, BaseModel) and "thread_id" not in type(outcome).model_fields:
            return self.sender.model_copy(update={"widget": outcome})
        return _items.validate_python(outcome)


async def load_action(
    store: DatabaseStore, assistant: Assistant, params: ThreadCustomActionParams, context: RequestContext
) -> tuple[ThreadMetadata, CheckedAction]:
    """The thread and the action of a request. Raises NotFound or Unprocessable."""
    thread = await store.load_thread(params.thread_id, context)
    if params.item_id is None:
        return thread, checked(assistant, params.action, None)
    sender = await store.load_item(params.thread_id, params.item_id, context)
    if not isinstance(sender, WidgetItem):
        raise Unprocessable("params.item_id: this item is not a widget.")
    return thread, checked(assistant, params.action, sender)


def checked(assistant: Assistant, action: Action[str, Any], sender: WidgetItem | None) -> CheckedAction:
    """Raises Unprocessable that names what is wrong."""
    registered = assistant.find_action(action.type)
    if registered is None or not _may_be_sent(registered.rules, sender):
        # One sentence for both, so that it does not reveal which actions other widgets may send.
        raise Unprocessable(f"params.action.type: there is no action {action.type[:100]!r} here.")
    try:
        payload = registered.rules.payload.validate_python(action.payload)
    except ValidationError as error:
        problem = first_problem(error)
        raise Unprocessable(f"{problem.path('params.action.payload')}: {problem.message}.") from None
    return CheckedAction(registered, payload, sender)


def _may_be_sent(rules: ActionRules, sender: WidgetItem | None) -> bool:
    if sender is None:
        return rules.is_free or rules.may_lack_sender
    return rules.is_free or declares(sender.widget, rules.type)
