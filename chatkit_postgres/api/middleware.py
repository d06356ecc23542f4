"""ASGI middleware: request id and access log, security headers, CORS, HEAD, and a catch-all error handler."""

import re
import time
from collections.abc import Awaitable, Sequence
from typing import ClassVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from chatkit_postgres.api.errors import error_response
from chatkit_postgres.api.event_stream import HANDED_OVER, EventStream
from chatkit_postgres.api.request_id import HEADER, give_request_id, request_id_of
from chatkit_postgres.errors import BadRequest, HeadersTooLarge, InternalError
from chatkit_postgres.observability import trace_names
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.tracing import nothing, span

MAX_SHOWN_PATH = 200
UNTRACED = ("/health/live", "/health/ready", "/metrics")
"""Asked every few seconds by those who watch."""
ROUTING = frozenset({"app", "endpoint", "path_params", "root_path", "route", "router", "state"})
"""Keys of the scope that middleware around this application may read after a response, for metrics by route."""

logger = get_logger("chatkit_postgres.requests")


class RequestIdMiddleware:
    """Gives each request its id and logs it once with its outcome. It answers nothing itself, but sends the events of
    streams (see EventStream)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = give_request_id(scope)
        # A host may have bound variables of its own.
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

        method, path = scope["method"], _loggable(scope["path"])
        streams: list[EventStream] = []
        scope[HANDED_OVER] = streams
        given = set(scope)
        is_traced = not path.endswith(UNTRACED)
        around = span(method, trace_names.request(method, path), headers=Headers(scope=scope))
        with around if is_traced else nothing() as traced:
            if traced.trace_id is not None:
                bind_contextvars(trace_id=traced.trace_id)
            try:
                await self.app(scope, receive, send_with_id)
                while streams:
                    # What the framework has added is not kept in memory while the stream is open.
                    for name in scope.keys() - given - ROUTING:
                        del scope[name]
                    await streams.pop().send_events(receive, send)
            finally:
                for stream in streams:
                    stream.leave()
                if (route := _template(scope)) is not None:
                    traced.rename(f"{method} {route}")
                    traced.set(trace_names.route(route))
                code = {"http.response.status_code": status} if status is not None else {}
                traced.set(code, is_failed=status is None or status >= 500)
                milliseconds = round((time.perf_counter() - started) * 1000, 1)
                logger.info("request", method=method, path=path, status=status, milliseconds=milliseconds)
                clear_contextvars()
                bind_contextvars(**before)


def _template(scope: Scope) -> str | None:
    """The path of the route, with names in place of values; None: there is no such route."""
    path = getattr(scope.get("route"), "path", None)
    return f"{scope.get('root_path', '')}{path}" if path is not None else None


def _loggable(path: str) -> str:
    """A path for the log: shortened, and without characters that a terminal would interpret."""
    return "".join(character if character.isprintable() else "\ufffd" for character in path[:MAX_SHOWN_PATH])


class SecurityHeadersMiddleware:
    """Adds security headers that a response does not set itself, and limits the total size of request headers."""

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

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.DEFAULTS.items():
                    headers.setdefault(name, value)
                # The older header has no origins, so it would contradict a policy that names some.
                if "frame-ancestors 'none'" not in headers["Content-Security-Policy"]:
                    del headers["X-Frame-Options"]
            await send(message)

        target = len(scope["query_string"]) + len(scope.get("raw_path") or b"")
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + target
        if size > self._max_header_bytes:
            refusal = error_response(HeadersTooLarge(), request_id_of(scope))
            return refusal(scope, receive, send_with_headers)
        return self.app(scope, receive, send_with_headers)


class CorsMiddleware:
    """Allows the configured origins on all paths, and any origin on signed URLs of files, because ChatKit's frame has
    an origin of its own."""

    SIGNED_URLS = re.compile(r"/api/attachments/[^/]+/(content|preview)")

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], with_cookies: bool) -> None:
        self._configured_origins = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_credentials=with_cookies,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Chat-On-Disconnect", HEADER],
            expose_headers=[HEADER, "Retry-After"],
        )
        self._any_origin = CORSMiddleware(
            app, allow_origins=["*"], allow_methods=["GET", "POST", "PUT"], allow_headers=["*"], expose_headers=[HEADER]
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_signed_url = scope["type"] == "http" and self.SIGNED_URLS.fullmatch(scope["path"])
        return (self._any_origin if is_signed_url else self._configured_origins)(scope, receive, send)


class UnhandledErrorMiddleware:
    """Turns unhandled exceptions into a 500 of the usual shape; inside CORS, so that pages can read the response."""

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
        except (Exception, SystemExit) as error:
            # A hook that calls sys.exit would end the process, and the answers of all others.
            if scope["type"] != "http":
                raise
            log_failure(logger, "request_failed", error)
            if not has_started:
                await error_response(InternalError(), request_id_of(scope))(scope, receive, send)


class HeadMiddleware:
    """Answers HEAD wherever GET is answered: with the same headers and no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self.app(scope, receive, send)

        has_ended = False

        async def send_without_body(message: Message) -> None:
            nonlocal has_ended
            if message["type"] == "http.response.body":
                if has_ended:
                    return
                # A stream may never end by itself.
                message, has_ended = {"type": "http.response.body", "body": b"", "more_body": False}, True
            await send(message)

        # A stream is sent through the function above.
        return self.app({**scope, "method": "GET", HANDED_OVER: None}, receive, send_without_body)


class LoopbackHostMiddleware:
    """Refuses other host names: a foreign page whose name resolves to 127.0.0.1 could get development tokens."""

    HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in self.HOSTS:
                refusal = BadRequest("Host: development mode answers to localhost, 127.0.0.1 and [::1] only.")
                return error_response(refusal, request_id_of(scope))(scope, receive, send)
        return self.app(scope, receive, send)
