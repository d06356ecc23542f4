"""The playground: a page to try the server, and its tokens. Mounted in development mode only."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.errors import (
    BadRequest,
    ForeignOrigin,
    NotFound,
    RequestTimedOut,
    Unprocessable,
    UnsupportedMediaType,
)
from chatkit_postgres.playground.markdown import code_style, rendered

STATIC = Path(__file__).parent / "static"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # One place of the page inserts markup, which comes from POST /playground/markdown only.
    "require-trusted-types-for 'script'; trusted-types markdown"
)
MAX_BODY_BYTES = 4096
MAX_MARKDOWN_BYTES = 256 * 1024
"""The page shows a longer text as plain text."""
BODY_SECONDS = 10

MintToken = Callable[[str], str]


class DevTokenRequest(BaseModel):
    user: str


class MarkdownRequest(BaseModel):
    text: str


def playground_router(mint_token: MintToken, assistant: Assistant, model: str | None) -> APIRouter:
    """``model`` is the name of the model that answers, if one does."""
    router = APIRouter()
    # One at a time, and in a thread that no conversation uses.
    renderer = ThreadPoolExecutor(1, thread_name_prefix="markdown")

    @router.get("/")
    async def page() -> Response:
        return _file("index.html")

    @router.get("/playground/code.css")
    async def colours() -> Response:
        return Response(code_style(), media_type="text/css", headers=HEADERS)

    @router.get("/playground/prompts")
    async def proposed() -> Response:
        more = [{"group": name, "prompts": _listed(prompts)} for name, prompts in assistant.more_prompts.items()]
        return JSONResponse({"model": model, "prompts": _listed(assistant.start_prompts), "more": more})

    @router.get("/playground/{name}")
    async def asset(name: str) -> Response:
        # Only existing names: a path from outside never touches the file system.
        if name not in {path.name for path in STATIC.iterdir()}:
            raise NotFound("There is nothing at this address.")
        return _file(name)

    @router.post("/playground/markdown")
    async def markdown(request: Request) -> Response:
        body = await _json_body(request, MAX_MARKDOWN_BYTES, "text: too long.")
        try:
            text = MarkdownRequest.model_validate_json(body).text
        except ValidationError:
            raise Unprocessable("text: the Markdown to be shown.") from None
        return JSONResponse({"blocks": await asyncio.get_running_loop().run_in_executor(renderer, rendered, text)})

    _add_tokens(router, mint_token)
    return router


def _listed(prompts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"text": text, "shows": shows} for text, shows in prompts.items()]


def _add_tokens(router: APIRouter, mint_token: MintToken) -> None:
    @router.post("/dev/token")
    async def dev_token(request: Request) -> Response:
        # Pages of other origins may use the server, but only with a token that they already have.
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise ForeignOrigin
        body = await _json_body(request, MAX_BODY_BYTES, "user: too long.")
        try:
            user = DevTokenRequest.model_validate_json(body).user
            token = mint_token(user)
        except (ValidationError, ValueError):
            raise Unprocessable("user: 1 to 255 printable characters.") from None
        return JSONResponse({"token": token}, headers={"Cache-Control": "no-store"})


HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",
    # Without it, browsers resolve the hosts of links that nobody has clicked.
    "X-DNS-Prefetch-Control": "off",
}


async def _json_body(request: Request, max_bytes: int, too_long: str) -> bytes:
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


def _file(name: str) -> Response:
    return FileResponse(STATIC / name, headers=HEADERS)
