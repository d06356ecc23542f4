"""An action that somebody sends is one that the assistant knows and a widget of the thread declares."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from chatkit.actions import Action
from chatkit.agents import AgentContext
from chatkit.server import stream_widget
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItem,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    WidgetItem,
)
from chatkit.widgets import WidgetRoot
from pydantic import BaseModel, PrivateAttr, TypeAdapter, ValidationError

from app.assistant import Assistant
from app.assistant.actions import Outcome, RegisteredAction
from app.context import RequestContext
from app.errors import Unprocessable

MOST_WAITING = 16
"""Words that may be ahead of what was told."""

_items: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
# onClickAction, onSubmitAction and their like; `action` is inside of a card's confirm and cancel.
_DECLARATION = re.compile(r"on[A-Z]\w*Action|action")


class CheckedAction:
    """An action with its handler and its validated payload."""

    def __init__(self, registered: RegisteredAction, payload: Any, sender: WidgetItem | None) -> None:
        self._registered = registered
        self._payload = payload
        self.sender = sender

    def events(self, context: "LiveContext") -> AsyncGenerator[ThreadStreamEvent, None]:
        """What the handler yields, or the item it returns as replaced; and what it streams through the context."""
        return context.merged(self._told(context))

    async def outcome(self, context: "LiveContext") -> ThreadItem | None:
        """The item that changed. Raises Unprocessable if the handler answers with a stream."""
        started = self._registered.handle(self._payload, self.sender, context)
        if isinstance(started, AsyncGenerator):
            await started.aclose()
            raise Unprocessable("params.action.type: this action answers with a stream; send threads.custom_action.")
        return self._changed(await started)

    async def _told(self, context: "LiveContext") -> AsyncGenerator[ThreadStreamEvent, None]:
        started = self._registered.handle(self._payload, self.sender, context)
        if isinstance(started, AsyncGenerator):
            async with aclosing(started):
                async for event in started:
                    yield event
        elif (changed := self._changed(await started)) is not None:
            yield ThreadItemReplacedEvent(item=changed)

    def _changed(self, outcome: Outcome) -> ThreadItem | None:
        if outcome is None:
            return None
        if self.sender is not None and isinstance(outcome, BaseModel) and "thread_id" not in type(outcome).model_fields:
            return self.sender.model_copy(update={"widget": outcome})
        return _items.validate_python(outcome)


def checked(assistant: Assistant, action: Action[str, Any], sender: WidgetItem | None) -> CheckedAction:
    """Raises Unprocessable that names what is wrong."""
    registered = assistant.find_action(action.type)
    if registered is None or not (registered.rules.is_free or (sender and declares(sender.widget, action.type))):
        # One sentence for both: what other widgets may send is nobody's business.
        raise Unprocessable(f"params.action.type: there is no action {action.type[:100]!r} here.")
    try:
        payload = registered.rules.payload.validate_python(action.payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(["params.action.payload", *map(str, first["loc"])])
        raise Unprocessable(f"{path}: {first['msg']}.") from None
    return CheckedAction(registered, payload, sender)


def declares(widget: WidgetRoot, action_type: str) -> bool:
    """Whether a component of the widget sends this action to the server."""
    return action_type in _declared(widget.model_dump())


def _declared(value: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(value, dict):
        for name, member in value.items():
            is_action = isinstance(member, dict) and _DECLARATION.fullmatch(name)
            if not is_action:
                found |= _declared(member)
            elif member.get("handler", "server") == "server":
                # What is inside of it is a payload, whatever it looks like.
                found.add(str(member.get("type")))
    elif isinstance(value, list):
        for element in value:
            found |= _declared(element)
    return found


def _is_word(event: ThreadStreamEvent) -> bool:
    """A piece of text, which nobody waits to be saved."""
    return isinstance(event, ThreadItemUpdatedEvent) and isinstance(event.update, AssistantMessageContentPartTextDelta)


# Any, because pydantic would look into a RequestContext, which is none of its models.
class LiveContext(AgentContext[Any]):
    """An AgentContext whose ``stream`` and ``stream_widget`` also work where no agent runs."""

    _told: asyncio.Queue[ThreadStreamEvent | None] = PrivateAttr(default_factory=asyncio.Queue)
    _is_heard: bool = PrivateAttr(default=False)

    async def stream(self, event: ThreadStreamEvent) -> None:
        """Returns when the event was saved and told: what an assistant does next, it does after that."""
        if not self._is_heard:
            raise RuntimeError("nothing can be streamed here: an action that is answered at once only returns an item")
        await self._told.put(event)
        await self._told.join()

    async def stream_widget(self, widget: Any, copy_text: str | None = None) -> None:
        async for event in stream_widget(self.thread, widget, copy_text, self.generate_id):
            await self.stream(event)

    async def merged(self, events: AsyncGenerator[ThreadStreamEvent, None]) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The events, and between them what is streamed through this context while they come."""

        async def run() -> None:
            try:
                # Closed at once when this is cancelled: the model's stream ends with it.
                async with aclosing(events):
                    async for event in events:
                        if _is_word(event) and self._told.qsize() < MOST_WAITING:
                            self._told.put_nowait(event)
                        else:
                            await self.stream(event)
            finally:
                self._told.put_nowait(None)

        self._is_heard = True
        running = asyncio.create_task(run())
        try:
            while (event := await self._told.get()) is not None:
                yield event
                self._told.task_done()
            await running
        finally:
            self._is_heard = False
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @classmethod
    def of(cls, thread: ThreadMetadata, store: Any, context: RequestContext) -> "LiveContext":
        return cls(thread=thread, store=store, request_context=context)
