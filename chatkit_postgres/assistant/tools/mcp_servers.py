"""Connects to MCP servers once for each process, shares their tools among all turns, and reconnects after a failure.

While a server is unreachable, only its tools are missing; the chat works without them.
"""

import asyncio
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol

from agents import RunContextWrapper, UserError
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp, MCPToolMetaContext
from mcp import ClientSession
from mcp.types import CallToolResult, ContentBlock, ImageContent, PaginatedRequestParams, TextContent, Tool

from chatkit_postgres.assistant.tools.mcp_file import McpServer
from chatkit_postgres.observability.logs import failure, get_logger, reason_of
from chatkit_postgres.observability.tracing import innermost_is_current

CONNECT_SECONDS = 20
CALL_SECONDS = 60
LIST_SECONDS = 3
POLL_SECONDS = 10
HTTP_POLL_SECONDS = 10
STDIO_POLL_SECONDS = CALL_SECONDS + 10
"""A program that runs one call at a time responds after the call; a program that has ended is noticed at once."""
CLOSE_SECONDS = 5
WAIT_SECONDS = 10
MAX_RESULT_CHARACTERS = 100_000
"""Maximum of a tool's result in the model input, because servers send any amount."""
MAX_IMAGE_CHARACTERS = 4_000_000
MAX_PAGES = 100
"""Maximum number of pages of a list of tools."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 60.0

logger = get_logger(__name__)


class Watcher(Protocol):
    async def progress(
        self, call: RunContextWrapper[Any], progress: float, total: float | None, message: str | None
    ) -> None: ...

    def note_failure(self, call: RunContextWrapper[Any]) -> None: ...


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
"""The progress listener of the current run; set where the run begins."""
_calling: ContextVar[RunContextWrapper[Any] | None] = ContextVar("calling", default=None)


class _Own(MCPServer):
    """Overrides shared by both transports; must come first in the MRO."""

    async def call_tool(self, tool_name: str, arguments: dict[str, Any] | None, meta: Any = None) -> CallToolResult:
        return await _answer_of(self, tool_name, arguments, meta)

    async def list_tools(self, *given: Any, **named: Any) -> Any:
        return await _tools_of(super().list_tools(*given, **named), self.name)  # type: ignore[safe-super] # a transport's

    async def fetch_tools(self) -> list[Tool]:
        """The tools of the server. Raises if the server does not respond."""
        return await super().list_tools()  # type: ignore[safe-super] # a transport's


class _Stdio(_Own, MCPServerStdio):
    pass


class _Http(_Own, MCPServerStreamableHttp):
    pass


async def _tools_of(listed: Any, name: str) -> Any:
    """Await a list of tools; a server that is lost or slow has no tools in this answer."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await listed
    except Exception as error:  # noqa: BLE001 - a server or its connection may raise anything
        logger.warning("mcp_tools_left_out", server=name, **failure(error))
        return []


Connection = _Stdio | _Http


async def _answer_of(connection: Any, tool_name: str, arguments: dict[str, Any] | None, meta: Any) -> CallToolResult:
    """Call a tool directly: the Agents SDK would request no progress, and over HTTP make one call at a time."""
    if connection.session is None:
        raise ConnectionError("the session is gone")
    listener, call = watcher.get(), _calling.get()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        if listener is not None and call is not None:
            await listener.progress(call, progress, total, message)

    # The library writes the current span into `_meta`: the requests of a session share a connection.
    with innermost_is_current():
        result = await connection.session.call_tool(tool_name, arguments, progress_callback=progressed, meta=meta)
    if result.is_error and listener is not None and call is not None:
        listener.note_failure(call)
    return bounded(result)


def bounded(result: CallToolResult) -> CallToolResult:
    """Shorten a result for the model, and note how much was left out. All content but images counts as text."""
    text_left, images_left, left_out = MAX_RESULT_CHARACTERS, MAX_IMAGE_CHARACTERS, 0
    content: list[ContentBlock] = []
    for block in result.content:
        if isinstance(block, ImageContent):
            images_left -= len(block.data)
            fits, size = images_left >= 0, len(block.data)
        else:
            size = len(block.text) if isinstance(block, TextContent) else len(block.model_dump_json())
            fits = size <= text_left
            if not fits and isinstance(block, TextContent) and text_left:
                content.append(TextContent(type="text", text=block.text[:text_left]))
                size -= text_left
            text_left = text_left - size if fits else 0
        if fits:
            content.append(block)
        else:
            left_out += size
    if left_out:
        content.append(TextContent(type="text", text=f"[{left_out} characters left out]"))
    structured = result.structured_content
    if structured is not None and len(json.dumps(structured)) > MAX_RESULT_CHARACTERS:
        structured = None
    return result.model_copy(update={"content": content, "structured_content": structured})


def _note_call(asked: MCPToolMetaContext) -> None:
    """Record the run of a call: the SDK resolves metadata in the task that then calls the tool without the run."""
    _calling.set(asked.run_context)


def connection_to(name: str, server: McpServer) -> Connection:
    common: dict[str, Any] = {
        "name": name,
        # Fetched once for each connection, not for each turn.
        "cache_tools_list": True,
        "client_session_timeout_seconds": CALL_SECONDS,
        "tool_meta_resolver": _note_call,
        "require_approval": server.approval_rules,
    }
    if server.url is not None:
        return _Http({"url": server.url, "headers": server.headers, "timeout": CONNECT_SECONDS}, **common)
    # The SDK adds PATH, HOME and their like, and nothing else of our environment, which holds secrets.
    params: dict[str, Any] = {"command": server.command, "args": server.args, "env": server.env}
    if server.cwd is not None:
        params["cwd"] = server.cwd
    return _Stdio(params, **common)  # type: ignore[arg-type] # a dict, not the SDK's TypedDict


class McpServers:
    def __init__(self, servers: dict[str, McpServer]) -> None:
        self._servers = servers
        self._connected: dict[str, Connection] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> Sequence[MCPServer]:
        """The servers that are connected now, in the order of the file: a run that waited for an approval must find
        them as they were."""
        return [self._connected[name] for name in self._servers if name in self._connected]

    async def wait_for_tools(self, names: Collection[str]) -> None:
        """Wait some seconds for the servers of these tools: a run may go on right after a start."""
        needed = {server for server in self._servers if any(name.startswith(f"mcp_{server}__") for name in names)}
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                while not needed <= self._connected.keys():  # noqa: ASYNC110 - rare, and short
                    await asyncio.sleep(0.1)

    def start(self) -> None:
        """Start to connect, in background tasks."""
        self._tasks = [
            asyncio.create_task(self._tend(name, server), name=f"mcp-{name}") for name, server in self._servers.items()
        ]

    async def close(self) -> None:
        """Disconnect, in a few seconds at most: a program that never responded cannot always be ended cleanly."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _tend(self, name: str, server: McpServer) -> None:
        """One task for each server, because a connection must be closed by the task that opened it."""
        wait = FIRST_WAIT_SECONDS
        while True:
            connection = connection_to(name, server)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    tools = await connection.fetch_tools()
                logger.info("mcp_connected", server=name, tools=len(tools))
                self._connected[name], wait = connection, FIRST_WAIT_SECONDS
                await _until_lost(connection, tools)
            except Exception as error:  # noqa: BLE001 - a server may raise anything
                # The SDK removes URLs from its own messages about a connection.
                reason = str(error) if isinstance(error, UserError) else reason_of(error)
                logger.warning("mcp_not_connected", server=name, at=server.place, reason=reason, again_in_seconds=wait)
            finally:
                self._connected.pop(name, None)
                with suppress(Exception):
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await connection.cleanup()  # type: ignore[no-untyped-call]
            await asyncio.sleep(wait)
            wait = min(2 * wait, MAX_WAIT_SECONDS)


async def _until_lost(connection: Connection, known: list[Tool]) -> None:
    """Poll a server, and raise when it no longer responds. If its tools have changed, they are fetched anew."""
    seconds = STDIO_POLL_SECONDS if isinstance(connection, _Stdio) else HTTP_POLL_SECONDS
    while True:
        await asyncio.sleep(POLL_SECONDS)
        if connection.session is None:
            raise ConnectionError("the session is gone")
        # Not a ping, which newer servers do not support.
        async with asyncio.timeout(seconds):
            found = await _all_tools(connection.session)
            if found != known:
                connection.invalidate_tools_cache()  # type: ignore[no-untyped-call]
                await connection.fetch_tools()
        known = found


async def _all_tools(session: ClientSession) -> list[Tool]:
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        found += page.tools
        if not (cursor := page.next_cursor):
            break
    return found
