"""Calls of MCP tools, shown as the tasks of a workflow while they run."""

from typing import Any

from agents import Agent, RunContextWrapper, RunHooks, Tool
from agents.tool import FunctionTool, ToolOriginType, get_function_tool_origin
from chatkit.agents import AgentContext
from chatkit.types import CustomTask, ProgressUpdateEvent

from app.assistant.mcp_servers import shown_title
from app.context import RequestContext


class ToolTasks(RunHooks[AgentContext[RequestContext]]):
    """Of one run."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[str, int]] = {}
        """Call id to the workflow and the place of its task in it."""

    async def on_tool_start(
        self, context: RunContextWrapper[AgentContext[RequestContext]], _agent: Agent[Any], tool: Tool
    ) -> None:
        title = _title_of(tool)
        if title is None:
            return
        chat = context.context
        await chat.stream(ProgressUpdateEvent(text=title))
        await chat.add_workflow_task(CustomTask(title=title, status_indicator="loading"))
        if chat.workflow_item is not None:
            place = len(chat.workflow_item.workflow.tasks) - 1
            self._running[_call_id(context, tool)] = (chat.workflow_item.id, place)

    async def on_tool_end(
        self, context: RunContextWrapper[AgentContext[RequestContext]], _agent: Agent[Any], tool: Tool, _result: object
    ) -> None:
        workflow_id, place = self._running.pop(_call_id(context, tool), ("", 0))
        workflow = context.context.workflow_item
        # It may have been ended by something that was shown meanwhile.
        if workflow is not None and workflow.id == workflow_id:
            task = CustomTask(title=_title_of(tool), status_indicator="complete")
            await context.context.update_workflow_task(task, place)


def _title_of(tool: Tool) -> str | None:
    """None for tools that are not an MCP server's."""
    origin = get_function_tool_origin(tool) if isinstance(tool, FunctionTool) else None
    if origin is None or origin.type is not ToolOriginType.MCP:
        return None
    return shown_title(tool.name, origin.mcp_server_name)


def _call_id(context: RunContextWrapper[Any], tool: Tool) -> str:
    return str(getattr(context, "tool_call_id", tool.name))
