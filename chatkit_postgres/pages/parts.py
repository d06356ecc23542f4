"""What the pages consist of: files, the colours of code, and a route that renders Markdown."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from chatkit_postgres.errors import BadRequest, NotFound, RequestTimedOut, Unprocessable, UnsupportedMediaType
from chatkit_postgres.pages.markdown import code_style, rendered

STATIC = Path(__file__).parent / "static"
MAX_MARKDOWN_BYTES = 256 * 1024
"""The page shows a longer text as plain text."""
BODY_SECONDS = 10


@dataclass(frozen=True)
class Gate:
    """Who may have Markdown rendered, and how much of it."""

    user_of: Callable[[Request], Awaitable[str]]
    """Raises for a request of nobody."""
    rendering: Callable[[str], AbstractAsyncContextManager[Callable[[float], Awaitable[None]]]]
    """Around the rendering for a user; what it yields is called with the seconds of processor time. Raises beyond the
    user's limits."""
    max_bytes: int


class MarkdownRequest(BaseModel):
    text: str


def policy(frame_ancestors: str = "'none'", *, uploads: str = "", images: str = "") -> str:
    """The Content-Security-Policy of a page. ``frame_ancestors``: who may show it in a frame; ``uploads`` and
    ``images``: where files go to and come from, besides this server's own origin."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src {_hosts(uploads)}; "
        f"img-src {_hosts(uploads, images)} data: blob:; "
        f"base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}; "
        # One place of the page inserts markup, which comes from the route that renders Markdown only.
        "require-trusted-types-for 'script'; trusted-types markdown"
    )


def _hosts(*more: str) -> str:
    return " ".join(["'self'", *filter(None, more)])


def headers(content_security_policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": content_security_policy,
        "Cache-Control": "no-cache",
        # Without it, browsers resolve the hosts of links that nobody has clicked.
        "X-DNS-Prefetch-Control": "off",
    }


def add_parts(router: APIRouter, prefix: str, gate: Gate | None = None) -> None:
    """The routes below the path of a page. Without a gate, everybody may have everything rendered."""
    # One at a time, and in a thread that no conversation uses.
    renderer = ThreadPoolExecutor(1, thread_name_prefix="markdown")
    of_files = headers(policy())

    @router.get(f"{prefix}/code.css")
    async def colours() -> Response:
        return Response(code_style(), media_type="text/css", headers=of_files)

    @router.get(f"{prefix}/{{name}}")
    async def asset(name: str) -> Response:
        # Only existing names: a path from outside never touches the file system. Pages have routes of their own.
        if name.endswith(".html") or name not in {path.name for path in STATIC.iterdir()}:
            raise NotFound("There is nothing at this address.")
        return FileResponse(STATIC / name, headers=of_files)

    async def blocks_of(text: str) -> tuple[list[str], float]:
        return await asyncio.get_running_loop().run_in_executor(renderer, _timed, text)

    @router.post(f"{prefix}/markdown")
    async def markdown(request: Request) -> Response:
        user_id = await gate.user_of(request) if gate is not None else None
        body = await json_body(request, gate.max_bytes if gate is not None else MAX_MARKDOWN_BYTES, "text: too long.")
        try:
            text = MarkdownRequest.model_validate_json(body).text
        except ValidationError:
            raise Unprocessable("text: the Markdown to be shown.") from None
        if gate is None or user_id is None:
            blocks, _ = await blocks_of(text)
        else:
            async with gate.rendering(user_id) as spend:
                blocks, seconds = await blocks_of(text)
                await spend(seconds)
        return JSONResponse({"blocks": blocks})


def _timed(text: str) -> tuple[list[str], float]:
    began = time.thread_time()
    return rendered(text), time.thread_time() - began


async def json_body(request: Request, max_bytes: int, too_long: str) -> bytes:
    # A form of another site can post text without a CORS preflight, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UnsupportedMediaType
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise Unprocessable(too_long)
    except ClientDisconnect:
        raise BadRequest from None
    except TimeoutError:
        raise RequestTimedOut from None
    return bytes(body)
