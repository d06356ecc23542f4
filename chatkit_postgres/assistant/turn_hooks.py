"""Hooks of a turn's run: MCP tool calls are shown as tasks of a workflow, failing tools are logged."""

import time
from typing import Any

from agents import Agent, RunContextWrapper, RunHooks, Tool, ToolErrorFormatterArgs
from agents.tool import FunctionTool, ToolOriginType, get_function_tool_origin
from chatkit.agents import AgentContext
from chatkit.errors import BaseStreamError
from chatkit.types import CustomTask, ProgressUpdateEvent, ThreadItemUpdatedEvent, WorkflowTaskUpdated

from chatkit_postgres.assistant.mcp_servers import shown_title
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import failure, get_logger

SECONDS_BETWEEN_PROGRESS = 0.25
MAX_PROGRESS = 200
"""Characters: servers send progress of any length, at any rate."""


logger = get_logger(__name__)


class ToolErrors(RunHooks[Any]):
    """Logs tools that fail, and ends the turn with a tool's user-facing error."""

    def __init__(self) -> None:
        self._for_user: BaseStreamError | None = None
        """The user-facing error that a tool raised: also a tool of an agent that is a tool itself, whose run reports
        its tools' failures here, but not their ends."""
        self._failed: set[str] = set()

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

    async def on_tool_end(
        self, _context: RunContextWrapper[Any], _agent: Agent[Any], _tool: Tool, _result: object
    ) -> None:
        if self._for_user is not None:
            raise self._for_user


class TurnHooks(ToolErrors):
    """Also shows the calls of MCP tools as the tasks of a workflow."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, tuple[str, int]] = {}
        """The workflow, and the index of the task in it, by call id."""
        self._sent_at: dict[str, float] = {}

    async def on_tool_start(
        self, context: RunContextWrapper[AgentContext[RequestContext]], _agent: Agent[Any], tool: Tool
    ) -> None:
        # Some servers reuse ids of calls in the next response.
        self._failed.discard(_call_id(context))
        title = _title_of(tool)
        if title is None:
            return
        chat = context.context
        await chat.stream(ProgressUpdateEvent(text=title))
        await chat.add_workflow_task(CustomTask(title=title, status_indicator="loading"))
        if chat.workflow_item is not None:
            place = len(chat.workflow_item.workflow.tasks) - 1
            self._running[_call_id(context)] = (chat.workflow_item.id, place)

    async def progress(
        self, call: RunContextWrapper[Any], progress: float, total: float | None, message: str | None
    ) -> None:
        call_id, now = _call_id(call), time.monotonic()
        if call_id not in self._running or now - self._sent_at.get(call_id, 0) < SECONDS_BETWEEN_PROGRESS:
            return
        self._sent_at[call_id] = now
        text = message or (f"{progress / total:.0%}" if total else f"{progress:g}")
        chat: AgentContext[RequestContext] = call.context
        workflow_id, place = self._running[call_id]
        if chat.workflow_item is not None and chat.workflow_item.id == workflow_id:
            title, text = chat.workflow_item.workflow.tasks[place].title, text[:MAX_PROGRESS]
            await chat.update_workflow_task(CustomTask(title=title, content=text, status_indicator="loading"), place)
            await chat.stream(ProgressUpdateEvent(text=f"{title}: {text}"))

    async def on_tool_end(
        self, context: RunContextWrapper[AgentContext[RequestContext]], agent: Agent[Any], tool: Tool, result: object
    ) -> None:
        await super().on_tool_end(context, agent, tool, result)
        workflow_id, place = self._running.pop(_call_id(context), ("", 0))
        if not workflow_id:
            return
        chat, task = context.context, CustomTask(title=_title_of(tool), status_indicator="complete")
        if _call_id(context) in self._failed:
            task = CustomTask(title=task.title, content="It failed.", status_indicator="none")
        if chat.workflow_item is not None and chat.workflow_item.id == workflow_id:
            await chat.update_workflow_task(task, place)
            return
        # Another item has ended the workflow, in which this task is still shown as loading.
        update = WorkflowTaskUpdated(task=task, task_index=place)
        await chat.stream(ThreadItemUpdatedEvent(item_id=workflow_id, update=update))


def _title_of(tool: Tool) -> str | None:
    """None for tools that are not an MCP server's."""
    origin = get_function_tool_origin(tool) if isinstance(tool, FunctionTool) else None
    if origin is None or origin.type is not ToolOriginType.MCP:
        return None
    return shown_title(tool.name, origin.mcp_server_name)


def _call_id(context: RunContextWrapper[Any]) -> str:
    return str(getattr(context, "tool_call_id", ""))
