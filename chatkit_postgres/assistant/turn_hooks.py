"""Hooks of a turn's run: calls of tools are shown as tasks of a workflow, failing tools are logged."""

import time
from typing import Any

from agents import (
    Agent,
    RunContextWrapper,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
    RunHooks,
    Tool,
    ToolErrorFormatterArgs,
)
from chatkit.agents import AgentContext
from chatkit.errors import BaseStreamError
from chatkit.types import CustomTask, ProgressUpdateEvent, ThreadItemUpdatedEvent, WorkflowItem, WorkflowTaskUpdated

from chatkit_postgres.assistant.approvals.approved_calls import approved_calls
from chatkit_postgres.assistant.guardrails import refusal_as_answer
from chatkit_postgres.assistant.tools.labels import ToolLabel, label_of
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import failure, get_logger

SECONDS_BETWEEN_PROGRESS = 0.25
MAX_PROGRESS = 200
"""Characters: servers send progress of any length, at any rate."""


logger = get_logger(__name__)


class ToolErrors(RunHooks[Any]):
    """Logs tools that fail, and ends the turn with a tool's user-facing error. Lets approved calls run once."""

    def __init__(self) -> None:
        self._for_user: BaseStreamError | None = None
        """The user-facing error that a tool raised: also a tool of an agent that is a tool itself, whose run reports
        its tools' failures here, but not their ends."""
        self._failed: set[str] = set()
        self.has_used_tools = self.has_refused = False
        """Whether a tool was called, and whether the model refused to answer."""

    def on_refusal(self, refused: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult:
        """A handler of ``model_refusal``."""
        self.has_refused = True
        return refusal_as_answer(refused)

    def on_tool_error(self, args: ToolErrorFormatterArgs[Any]) -> None:
        """A RunConfig's ``tool_error_formatter``, which does not change the message for the model. A user-facing error
        ends the turn when the tool has ended."""
        if isinstance(args.error, BaseStreamError):
            self._for_user = self._for_user or args.error
        elif args.error is not None:
            self._failed.add(args.call_id)
            logger.warning("tool_failed", tool=args.tool_name, **failure(args.error))

    def note_failure(self, call: RunContextWrapper[Any]) -> None:
        self._failed.add(_call_id(call))

    async def on_tool_start(self, context: RunContextWrapper[Any], _agent: Agent[Any], _tool: Tool) -> None:
        self.has_used_tools = True
        # Some servers reuse ids of calls in the next response.
        self._failed.discard(_call_id(context))
        if (approved := approved_calls.get()) is not None:
            await approved.begin(_call_id(context))

    async def on_tool_end(
        self, context: RunContextWrapper[Any], _agent: Agent[Any], _tool: Tool, result: object
    ) -> None:
        if (approved := approved_calls.get()) is not None:
            await approved.end(_call_id(context), result)
        if self._for_user is not None:
            raise self._for_user


class TurnHooks(ToolErrors):
    """Also shows the calls of function tools as the tasks of a workflow, those of MCP servers included, unless there is
    no ``label``."""

    def __init__(self, label: ToolLabel | None = None) -> None:
        super().__init__()
        self._label = label
        self._running: dict[str, tuple[str, int, str]] = {}
        """The workflow, the index of the task in it, and its title, by call id."""
        self._shown: dict[str, int] = {}
        """The number of tasks in each workflow."""
        self._sent_at: dict[str, float] = {}

    async def on_tool_start(
        self, context: RunContextWrapper[AgentContext[RequestContext]], agent: Agent[Any], tool: Tool
    ) -> None:
        await super().on_tool_start(context, agent, tool)
        title = label_of(tool, context, self._label) if self._label is not None else None
        if title is None:
            return
        chat = context.context
        await chat.stream(ProgressUpdateEvent(text=title))
        await chat.add_workflow_task(CustomTask(title=title, status_indicator="loading"))
        if chat.workflow_item is not None:
            place = len(chat.workflow_item.workflow.tasks) - 1
            self._running[_call_id(context)] = (chat.workflow_item.id, place, title)
            self._shown[chat.workflow_item.id] = self._shown.get(chat.workflow_item.id, 0) + 1

    def has_only_calls(self, item: WorkflowItem) -> bool:
        """Whether a workflow shows nothing but calls of tools."""
        return len(item.workflow.tasks) == self._shown.get(item.id, 0)

    async def progress(
        self, call: RunContextWrapper[Any], progress: float, total: float | None, message: str | None
    ) -> None:
        call_id, now = _call_id(call), time.monotonic()
        if call_id not in self._running or now - self._sent_at.get(call_id, 0) < SECONDS_BETWEEN_PROGRESS:
            return
        self._sent_at[call_id] = now
        text = message or (f"{progress / total:.0%}" if total else f"{progress:g}")
        chat: AgentContext[RequestContext] = call.context
        workflow_id, place, title = self._running[call_id]
        if chat.workflow_item is not None and chat.workflow_item.id == workflow_id:
            text = text[:MAX_PROGRESS]
            await chat.update_workflow_task(CustomTask(title=title, content=text, status_indicator="loading"), place)
            await chat.stream(ProgressUpdateEvent(text=f"{title}: {text}"))

    async def on_tool_end(
        self, context: RunContextWrapper[AgentContext[RequestContext]], agent: Agent[Any], tool: Tool, result: object
    ) -> None:
        await super().on_tool_end(context, agent, tool, result)
        workflow_id, place, title = self._running.pop(_call_id(context), ("", 0, ""))
        if not workflow_id:
            return
        chat, task = context.context, CustomTask(title=title, status_indicator="complete")
        if _call_id(context) in self._failed:
            task = CustomTask(title=task.title, content="It failed.", status_indicator="none")
        if chat.workflow_item is not None and chat.workflow_item.id == workflow_id:
            await chat.update_workflow_task(task, place)
            return
        # Another item has ended the workflow, in which this task is still shown as loading.
        update = WorkflowTaskUpdated(task=task, task_index=place)
        await chat.stream(ThreadItemUpdatedEvent(item_id=workflow_id, update=update))


def _call_id(context: RunContextWrapper[Any]) -> str:
    return str(getattr(context, "tool_call_id", ""))
