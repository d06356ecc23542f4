"""Tools of MCP servers: connected once for each process, shared by all turns, connected again when they are lost.

A server that is away takes its tools with it, and nothing else: the chat goes on without them.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from agents import RunContextWrapper, UserError
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp, MCPToolMetaContext
from mcp import ClientSession
from mcp.types import CallToolResult, ContentBlock, ImageContent, PaginatedRequestParams, TextContent, Tool
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from chatkit_postgres.observability.logs import failure, get_logger, reason_of

CONNECT_SECONDS = 20
CALL_SECONDS = 60
LIST_SECONDS = 3
LOOK_SECONDS = 10
HTTP_LOOK_SECONDS = 10
STDIO_LOOK_SECONDS = CALL_SECONDS + 10
"""A program that does one thing at a time answers when its tool has ended; one that has ended is noticed at once."""
CLOSE_SECONDS = 5
MAX_RESULT_CHARACTERS = 100_000
"""Of what a tool answers, to be read by the model: a server says as much as it likes."""
MAX_PICTURE_CHARACTERS = 4_000_000
MAX_PAGES = 100
"""Of a list of tools."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 60.0

logger = get_logger(__name__)


class McpError(Exception):
    """The file of servers cannot be used; the message says why."""


class McpServer(BaseModel):
    """One of them, as the usual ``mcpServers`` file has it: a program to start, or an address."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["stdio", "http", "streamable-http"] | None = None
    """As other programs write it. What it is follows from the rest."""
    command: str | None = None
    args: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    cwd: Path | None = None
    url: str | None = Field(None, pattern=r"^https?://")
    headers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_two(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("give either a command or a url")
        if self.url is not None:
            try:
                _ = urlsplit(self.url).port
            except ValueError as error:
                raise ValueError(f"the url is none: {error}") from None
        return self

    @property
    def place(self) -> str:
        """For a log: no arguments and no path, which may be secret."""
        if self.command is not None:
            return self.command
        address = urlsplit(self.url or "")
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


class McpFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mcpServers: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")], McpServer]  # noqa: N815 - as others write it


def read_servers(file: Path) -> dict[str, McpServer]:
    """Raises McpError."""
    try:
        return dict(McpFile.model_validate_json(file.read_bytes()).mcpServers)
    except OSError as error:
        raise McpError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise McpError(f"{file}: {where or 'it'}: {first['msg'].removeprefix('Value error, ')}") from None


class Watcher(Protocol):
    async def progress(
        self, call: RunContextWrapper[Any], progress: float, total: float | None, message: str | None
    ) -> None: ...

    def note_failure(self, call: RunContextWrapper[Any]) -> None: ...


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
"""Who is told how far the calls have come that a run makes: set where the run begins."""
_calling: ContextVar[RunContextWrapper[Any] | None] = ContextVar("calling", default=None)


class _Own(MCPServer):
    """What both kinds do otherwise than the SDK's. Before them in the order of methods."""

    async def call_tool(self, tool_name: str, arguments: dict[str, Any] | None, meta: Any = None) -> CallToolResult:
        return await _answer_of(self, tool_name, arguments, meta)

    async def list_tools(self, *given: Any, **named: Any) -> Any:
        return await _tools_of(super().list_tools(*given, **named), self.name)  # type: ignore[safe-super] # theirs, see above

    async def look(self) -> list[Tool]:
        """The tools it has. Raises if it does not answer."""
        return await super().list_tools()  # type: ignore[safe-super] # theirs, see above


class _Stdio(_Own, MCPServerStdio):
    pass


class _Http(_Own, MCPServerStreamableHttp):
    pass


async def _tools_of(listed: Any, name: str) -> Any:
    """Lost between two looks, or slow: its tools are left out of this answer."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await listed
    except Exception as error:  # noqa: BLE001 - whatever a server or its connection does
        logger.warning("mcp_tools_left_out", server=name, **failure(error))
        return []


Connection = _Stdio | _Http


async def _answer_of(connection: Any, tool_name: str, arguments: dict[str, Any] | None, meta: Any) -> CallToolResult:
    """What the Agents SDK does not do: it asks for no progress, and over HTTP for one thing at a time."""
    if connection.session is None:
        raise ConnectionError("the session is gone")
    told, call = watcher.get(), _calling.get()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        if told is not None and call is not None:
            await told.progress(call, progress, total, message)

    result = await connection.session.call_tool(tool_name, arguments, progress_callback=progressed, meta=meta)
    if result.is_error and told is not None and call is not None:
        told.note_failure(call)
    return bounded(result)


def bounded(result: CallToolResult) -> CallToolResult:
    """What of it goes to the model, with a word about what does not. All but pictures is text to the model."""
    text_left, pictures_left, left_out = MAX_RESULT_CHARACTERS, MAX_PICTURE_CHARACTERS, 0
    content: list[ContentBlock] = []
    for block in result.content:
        if isinstance(block, ImageContent):
            pictures_left -= len(block.data)
            fits, size = pictures_left >= 0, len(block.data)
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
    """The SDK asks for metadata in the task that then calls the tool, which itself is not told whose call it is."""
    _calling.set(asked.run_context)


def connection_to(name: str, server: McpServer) -> Connection:
    common: dict[str, Any] = {
        "name": name,
        # Asked once for each connection, not for each turn.
        "cache_tools_list": True,
        "client_session_timeout_seconds": CALL_SECONDS,
        "tool_meta_resolver": _note_call,
    }
    if server.url is not None:
        return _Http({"url": server.url, "headers": server.headers, "timeout": CONNECT_SECONDS}, **common)
    # The SDK adds PATH, HOME and their like, and nothing else of our environment, which holds secrets.
    params: dict[str, Any] = {"command": server.command, "args": server.args, "env": server.env}
    if server.cwd is not None:
        params["cwd"] = server.cwd
    return _Stdio(params, **common)  # type: ignore[arg-type] # as its type says, piece by piece


class McpServers:
    def __init__(self, servers: dict[str, McpServer]) -> None:
        self._servers = servers
        self._connected: dict[str, Connection] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> Sequence[MCPServer]:
        """Those whose tools may be called now."""
        return list(self._connected.values())

    def start(self) -> None:
        """Begin to connect; nobody waits for it."""
        self._tasks = [
            asyncio.create_task(self._tend(name, server), name=f"mcp-{name}") for name, server in self._servers.items()
        ]

    async def close(self) -> None:
        """Not longer than a few seconds: a program that never spoke cannot always be ended in an orderly way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _tend(self, name: str, server: McpServer) -> None:
        """One task for a server's whole life, because a connection has to be ended by the task that began it."""
        wait = FIRST_WAIT_SECONDS
        while True:
            connection = connection_to(name, server)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    tools = await connection.look()
                logger.info("mcp_connected", server=name, tools=len(tools))
                self._connected[name], wait = connection, FIRST_WAIT_SECONDS
                await _until_lost(connection, tools)
            except Exception as error:  # noqa: BLE001 - whatever a server does
                # The SDK's own sentences about a connection are cleared of addresses.
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
    """Raises when it no longer answers. Tools that have come or gone meanwhile are asked for anew."""
    seconds = STDIO_LOOK_SECONDS if isinstance(connection, _Stdio) else HTTP_LOOK_SECONDS
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if connection.session is None:
            raise ConnectionError("the session is gone")
        # Not a ping, which newer servers do not know.
        async with asyncio.timeout(seconds):
            found = await _all_tools(connection.session)
            if found != known:
                connection.invalidate_tools_cache()  # type: ignore[no-untyped-call]
                await connection.look()
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


def shown_title(tool_name: str, server_name: str | None) -> str:
    """``mcp_files__read_text``, as the Agents SDK calls it, of the server ``files`` as people read it."""
    bare = tool_name.removeprefix(f"mcp_{server_name}__") if server_name else tool_name
    words = re.sub(r"[_-]+", " ", bare).strip()
    return f"{server_name}: {words}" if server_name else words
