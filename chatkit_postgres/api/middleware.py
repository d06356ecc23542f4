"""ASGI middleware: request id and access log, security headers, CORS, HEAD, and a catch-all error handler."""

import re
import time
from collections.abc import Sequence
from typing import ClassVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from chatkit_postgres.api.errors import error_response
from chatkit_postgres.api.request_id import HEADER, give_request_id, request_id_of
from chatkit_postgres.errors import BadRequest, HeadersTooLarge, InternalError
from chatkit_postgres.observability.logs import get_logger, log_failure

MAX_SHOWN_PATH = 200

logger = get_logger("chatkit_postgres.requests")


class RequestIdMiddleware:
    """Gives each request its id and logs it once with its outcome. It answers nothing itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = give_request_id(scope)
        # An application that has mounted ours may have bound some of its own.
        before = get_contextvars()
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            logger.info(
                "request",
                method=scope["method"],
                path=_shown(scope["path"]),
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )
            clear_contextvars()
            bind_contextvars(**before)


def _shown(path: str) -> str:
    """A path as a log may have it: of bounded length, and nothing in it that a terminal obeys."""
    return "".join(character if character.isprintable() else "\ufffd" for character in path[:MAX_SHOWN_PATH])


class SecurityHeadersMiddleware:
    """What every answer tells browsers, unless its route knows better; and the last look at the size of headers."""

    DEFAULTS: ClassVar[dict[str, str]] = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    def __init__(self, app: ASGIApp, *, max_header_bytes: int) -> None:
        self.app = app
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        target = len(scope["query_string"]) + len(scope.get("raw_path") or b"")
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + target
        if size > self._max_header_bytes:
            refusal = error_response(HeadersTooLarge(), request_id_of(scope))
            await refusal(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


class CorsMiddleware:
    """Pages of the configured origins may call everything; any page may use a link to a file, which is its own
    permission: ChatKit's frame has an origin of its own."""

    LINKED = re.compile(r"/api/attachments/[^/]+/(content|preview)")

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], with_cookies: bool) -> None:
        self._own = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_credentials=with_cookies,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", HEADER],
            expose_headers=[HEADER, "Retry-After"],
        )
        self._anybodys = CORSMiddleware(
            app, allow_origins=["*"], allow_methods=["GET", "POST", "PUT"], allow_headers=["*"], expose_headers=[HEADER]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_linked = scope["type"] == "http" and self.LINKED.fullmatch(scope["path"])
        await (self._anybodys if is_linked else self._own)(scope, receive, send)


class UnhandledErrorMiddleware:
    """Turns whatever nobody else caught into a 500 of the usual shape. Inside CORS, so that browsers can read it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def noticing_send(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noticing_send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log_failure(logger, "request_failed", error)
            if not has_started:
                await error_response(InternalError(), request_id_of(scope))(scope, receive, send)


class HeadMiddleware:
    """Answers HEAD wherever GET is answered: with the same headers and no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


class LoopbackHostMiddleware:
    """A page elsewhere that points its own name at 127.0.0.1 would otherwise get development tokens from us."""

    HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in self.HOSTS:
                refusal = BadRequest("Host: development mode answers to localhost, 127.0.0.1 and [::1] only.")
                await error_response(refusal, request_id_of(scope))(scope, receive, send)
                return
        await self.app(scope, receive, send)
