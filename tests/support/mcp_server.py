"""An MCP server: ``python -m tests.support.mcp_server stdio``, or ``http PORT``."""

import asyncio
import os
import sys

from mcp.server.mcpserver import Context, MCPServer

from tests.support.effects import effect

server = MCPServer("arithmetic")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"the sum is {a + b}"


@server.tool()
async def slowly() -> str:
    """Takes a moment."""
    await asyncio.sleep(0.5)
    return "done slowly"


hurried = asyncio.Event()


@server.tool()
async def wait() -> str:
    """Waits for somebody to call ``hurry``."""
    try:
        await asyncio.wait_for(hurried.wait(), 30)
    except TimeoutError:
        return "nobody came"
    return "somebody came"


@server.tool()
async def hurry() -> str:
    """Ends the waiting."""
    hurried.set()
    return "hurried"


@server.tool()
async def report(context: Context) -> str:
    """Says how far it has come, far too often."""
    for number in range(500):
        await context.report_progress(number, 500, f"page {number} of 500")
        await asyncio.sleep(0.002)
    return "read 500 pages"


@server.tool()
def fail() -> str:
    """Does not work."""
    raise RuntimeError("as its name says")


@server.tool()
def much() -> str:
    """Answers with a megabyte."""
    return "x" * 1_000_000


@server.tool()
def learn(name: str) -> str:
    """Has one more tool from now on."""

    def learned() -> str:
        return "learned"

    server.add_tool(learned, name=name)
    return "there is one more"


@server.tool()
async def pay(note: str) -> str:
    """Has an effect."""
    await effect(note)
    return f"paid {note}"


@server.tool()
def parent(context: Context) -> str:
    """The trace that the call belongs to."""
    return f"called below {(context.request_context.meta or {}).get('traceparent')}"


@server.tool()
def environment() -> str:
    """The names of the variables this server was started with."""
    return " ".join(sorted(os.environ))


@server.tool()
def end() -> str:
    """Ends the process, as a crash does."""
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
