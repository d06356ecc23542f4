"""Sends every error in one JSON shape: ``{"code", "message", "request_id"}``."""

from chatkit.store import NotFoundError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.request_id import request_id_of
from chatkit_postgres.errors import (
    BadRequest,
    ChatError,
    HeadersTooLarge,
    InternalError,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
)

_BY_STATUS: dict[int, type[ChatError]] = {
    400: BadRequest,
    401: Unauthorized,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
    431: HeadersTooLarge,
}

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_UNREAD = frozenset({408, 431})


def error_response(error: ChatError, request_id: str) -> Response:
    # For the request's line in the access log.
    bind_contextvars(code=error.code)
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status in _UNREAD:
        # Otherwise the rest of the request would be read for as long as the client sends. Not for 413: a client that is
        # still sending would see a broken connection instead of the response, and http_protocol.py closes it in time.
        headers["Connection"] = "close"
    if isinstance(error, Unauthorized):
        bind_contextvars(fault=error.fault)
        headers["WWW-Authenticate"] = "Bearer"
    body = {"code": error.code, "message": error.message, "request_id": request_id}
    return JSONResponse(body, status_code=error.status, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes at this address: the framework names those of the first one."""
    routes = request.app.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def install_error_handlers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        # Starlette calls a handler with its own kind of exception only, but declares any.
        refusal = error if isinstance(error, ChatError) else InternalError()
        response = error_response(refusal, request_id_of(request.scope))
        if refusal.status == 413 and "expect" in request.headers:
            # The client never sends this body, and its next request would be read as the body.
            response.headers["Connection"] = "close"
        return response

    async def not_found(request: Request, _: Exception) -> Response:
        return error_response(NotFound(), request_id_of(request.scope))

    async def of_the_framework(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        kind = _BY_STATUS.get(status, InternalError if status >= 500 else BadRequest)
        sentence = "There is nothing at this address." if kind is NotFound else None
        response = error_response(kind(sentence), request_id_of(request.scope))
        if status == 405:
            response.headers["Allow"] = ", ".join(_allowed_methods(request))
        return response

    async def invalid(request: Request, _: Exception) -> Response:
        return error_response(BadRequest(), request_id_of(request.scope))

    app.add_exception_handler(ChatError, known)
    app.add_exception_handler(NotFoundError, not_found)
    app.add_exception_handler(HTTPException, of_the_framework)
    app.add_exception_handler(RequestValidationError, invalid)
