"""Queues client tools that a model calls at once, because a client runs one at a time.

Waiting calls are stored in the thread's metadata, which clients do not see, until the call before has its output. A new
message of the user, or a retry, drops the waiting calls.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from chatkit.agents import AgentContext, ClientToolCall
from chatkit.types import (
    ClientToolCallItem,
    DurationSummary,
    ThreadItemDoneEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    Workflow,
    WorkflowItem,
)
from pydantic import PrivateAttr

from chatkit_postgres.text import clean_json

WAITING = "chatkit_postgres.client_tool_calls"
"""The key in a thread's metadata."""


class AllCalls(AgentContext[Any]):
    """The context of a run, in which a second call of a client tool does not overwrite the first, nor the workflow of a
    tool that of another one."""

    _calls: list[ClientToolCall] = PrivateAttr(default_factory=list)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "client_tool_call":
            # A tool may also take its call back.
            self._calls = [*self._calls, value] if isinstance(value, ClientToolCall) else []
        super().__setattr__(name, value)

    def take_calls(self) -> Sequence[ClientToolCall]:
        """The calls of client tools, which are not sent then."""
        taken = self._calls or ([self.client_tool_call] if self.client_tool_call is not None else [])
        self.client_tool_call = None
        return taken

    @property
    def client_tools(self) -> set[str]:
        """The names of the client tools that the run has called."""
        return {call.name for call in self._calls} | ({self.client_tool_call.name} if self.client_tool_call else set())

    async def start_workflow(self, workflow: Workflow) -> None:
        if self.workflow_item is not None and self.workflow_item.workflow.tasks:
            await self.end_workflow()
        await super().start_workflow(workflow)

    def ended_workflow(self) -> WorkflowItem | None:
        """The workflow that is open at the end of a run, as an item that is done."""
        item, self.workflow_item = self.workflow_item, None
        if item is None or not item.workflow.tasks:
            return None
        seconds = int((datetime.now() - item.created_at).total_seconds())  # noqa: DTZ005 - as the SDK's own
        item.workflow.summary = item.workflow.summary or DurationSummary(duration=seconds)
        item.workflow.expanded = False
        return item

    async def first_call(self, event: ThreadStreamEvent) -> ThreadStreamEvent:
        """Return the event, or that of the first call if the run ended with several, and save the others."""
        if not (isinstance(event, ThreadItemDoneEvent) and isinstance(event.item, ClientToolCallItem)):
            return event
        if event.item.status != "pending" or len(self._calls) < 2:
            return event
        first, *others = self._calls
        self._calls.clear()
        self.thread.metadata[WAITING] = [
            {"id": self.generate_id("tool_call"), **clean_json({"name": call.name, "arguments": call.arguments})}
            for call in others
        ]
        await self.store.save_thread(self.thread, self.request_context)
        asked = event.item.model_copy(update={"name": first.name, "arguments": first.arguments})
        return ThreadItemDoneEvent(item=asked)


def with_all_calls(context: AgentContext[Any]) -> AllCalls:
    """Copy a context to a subclass of its class that records all calls of client tools."""
    kind = _extended(type(context))
    extended = kind.model_construct(
        context.model_fields_set,
        **{name: getattr(context, name) for name in type(context).model_fields},
        **(context.model_extra or {}),
    )
    for name, value in (context.__pydantic_private__ or {}).items():
        setattr(extended, name, value)
    return extended


@cache
def _extended(kind: type[AgentContext[Any]]) -> type[AllCalls]:
    return type(kind.__name__, (AllCalls, kind), {"__module__": kind.__module__})


def next_call(thread: ThreadMetadata) -> ClientToolCallItem | None:
    """Remove the next waiting call and return it; None if there is none."""
    waiting = thread.metadata.get(WAITING)
    if not isinstance(waiting, list) or not waiting:
        return None
    call = waiting[0]
    thread.metadata = {**thread.metadata, WAITING: waiting[1:]} if waiting[1:] else _without_waiting(thread)
    return ClientToolCallItem(
        id=call["id"],
        thread_id=thread.id,
        created_at=datetime.now(),  # noqa: DTZ005 - as the SDK's own
        call_id=call["id"],
        name=call["name"],
        arguments=call["arguments"],
    )


def drop_calls(thread: ThreadMetadata) -> bool:
    """Remove all waiting calls, and return whether there were any."""
    has_any = WAITING in thread.metadata
    thread.metadata = _without_waiting(thread)
    return has_any


def _without_waiting(thread: ThreadMetadata) -> dict[str, Any]:
    return {name: value for name, value in thread.metadata.items() if name != WAITING}
