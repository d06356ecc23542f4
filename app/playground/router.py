"""A page to try the server, and the tokens it needs. Only ever mounted in development mode."""

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from app.errors import BadRequest, NotFound, Unprocessable, UnsupportedMediaType

STATIC = Path(__file__).parent / "static"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LONGEST_BODY_BYTES = 4096

MintToken = Callable[[str], str]


class DevTokenRequest(BaseModel):
    user: str


def playground_router(mint_token: MintToken) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    async def page() -> Response:
        return _file("index.html")

    @router.get("/playground/{name}")
    async def asset(name: str) -> Response:
        # Only names that are there: a path from outside never touches the file system.
        if name not in {path.name for path in STATIC.iterdir()}:
            raise NotFound("There is nothing at this address.")
        return _file(name)

    @router.post("/dev/token")
    async def dev_token(request: Request) -> Response:
        # A form of another site can post text, but not JSON, without being asked first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise UnsupportedMediaType
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY_BYTES:
                    raise Unprocessable("user: too long.")
        except ClientDisconnect:
            raise BadRequest from None
        try:
            user = DevTokenRequest.model_validate_json(body).user
            token = mint_token(user)
        except (ValidationError, ValueError):
            raise Unprocessable("user: 1 to 255 printable characters.") from None
        return JSONResponse({"token": token}, headers={"Cache-Control": "no-store"})

    return router


def _file(name: str) -> Response:
    return FileResponse(
        STATIC / name,
        headers={
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cache-Control": "no-cache",
        },
    )
