"""Readable names of tools."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from agents import RunContextWrapper, Tool
from agents.tool import FunctionTool, ToolOriginType, get_function_tool_origin

from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.text import clean_text

MAX_LABEL = 200

ToolLabel = Callable[[str, Mapping[str, Any]], str | None]

logger = get_logger(__name__)


def readable(name: str) -> str:
    """``Refund order`` for ``refund_order``; ``files: read text`` for ``mcp_files__read_text``, the Agents SDK's name
    for a tool of the MCP server ``files``."""
    of_server = re.fullmatch(r"mcp_(.+?)__(.+)", name)
    if of_server is not None:
        return f"{of_server[1]}: {_words(of_server[2])}"
    words = _words(name)
    return words[:1].upper() + words[1:]


def label_of(tool: Tool, call: RunContextWrapper[Any], label: ToolLabel) -> str | None:
    """The label of a call of a function tool; None if the call is not shown."""
    if not isinstance(tool, FunctionTool):
        return None
    return label_by(label, qualified_name(tool), arguments_of(getattr(call, "tool_arguments", None)))


def label_by(label: ToolLabel, name: str, arguments: Mapping[str, Any]) -> str | None:
    try:
        shown = label(name, arguments)
    except Exception as error:  # noqa: BLE001 - a team's code; the call itself is not affected
        logger.warning("tool_label_failed", tool=name, **failure(error))
        shown = readable(name)
    return None if shown is None else clean_text(str(shown))[:MAX_LABEL]


def qualified_name(tool: FunctionTool) -> str:
    """With the name of the MCP server, also where the Agents SDK leaves it out."""
    origin = get_function_tool_origin(tool)
    if origin is None or origin.type is not ToolOriginType.MCP or tool.name.startswith("mcp_"):
        return tool.name
    return f"mcp_{origin.mcp_server_name}__{tool.name}"


def arguments_of(given: object) -> Mapping[str, Any]:
    """The arguments of a call; empty if they are no JSON object."""
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


def _words(name: str) -> str:
    return re.sub(r"[_-]+", " ", name).strip()
