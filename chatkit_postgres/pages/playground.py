"""The playground: a page to try the server, and its tokens. Mounted in development mode only."""

import re
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import HTMLResponse, JSONResponse, Response

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.errors import ForeignOrigin, Unprocessable
from chatkit_postgres.pages.parts import STATIC, add_parts, headers, json_body, policy

MAX_BODY_BYTES = 4096

MintToken = Callable[[str], str]


class DevTokenRequest(BaseModel):
    user: str


def playground_router(mint_token: MintToken, assistant: Assistant, model: str | None) -> APIRouter:
    """``model`` is the name of the model that answers, if one does."""
    router = APIRouter()
    page = re.sub(r"<!-- embed only: .*? -->", "", (STATIC / "index.html").read_text(), flags=re.DOTALL)

    @router.get("/")
    async def index() -> Response:
        return HTMLResponse(page, headers=headers(policy()))

    @router.get("/playground/prompts")
    async def proposed() -> Response:
        more = [{"group": name, "prompts": _listed(prompts)} for name, prompts in assistant.more_prompts.items()]
        return JSONResponse({"model": model, "prompts": _listed(assistant.start_prompts), "more": more})

    add_parts(router, "/playground")
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
        body = await json_body(request, MAX_BODY_BYTES, "user: too long.")
        try:
            user = DevTokenRequest.model_validate_json(body).user
            token = mint_token(user)
        except (ValidationError, ValueError):
            raise Unprocessable("user: 1 to 255 printable characters.") from None
        return JSONResponse({"token": token}, headers={"Cache-Control": "no-store"})
