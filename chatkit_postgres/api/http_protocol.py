"""uvicorn's HTTP protocol with limits that an ASGI application cannot set, because it is called too late or not at all.

httptools accepts headers and trailers of any length and duration, reports trailers as headers, and parses the body of a
request with ``Upgrade`` as the next request. ``serve`` uses this class; plain uvicorn needs
``--http chatkit_postgres.api.http_protocol:BoundedHttpProtocol``.
"""

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from chatkit_postgres.errors import BadRequest, ChatError, HeadersTooLarge, RequestTimedOut

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGISendEvent

MAX_HEADER_BYTES = 64 * 1024


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose headers exceed ``h11_max_incomplete_event_size`` bytes or take too long, that request
    an upgrade, that send a body nobody reads, or whose clients read nothing. Clients of HTTP/1.0 get no chunks.

    A response that starts while more than ``linger_bytes`` of its request's body are missing is the last one of its
    connection (RFC 9112, 9.3). The connection is closed once the body has been received, not before: closing it while
    the client sends could destroy the response."""

    header_seconds: float = 15
    linger_seconds: float = 2
    linger_bytes = 1024 * 1024
    """Maximum size of the rest of a body that is received after the response."""
    stalled_seconds: float = 30
    """Maximum time in which a client reads nothing of the buffered response."""

    _head_bytes = 0
    _stage: Literal["between", "head", "body"] = "between"
    _refused = False
    _is_last = False
    _ends_with_connection: RequestResponseCycle | None = None
    _unread_bytes = 0
    _rest_bytes: float = 0
    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._set_deadline(self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        began_in = self._stage
        self._unread_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        match self._stage:
            case "head" if began_in == "head":
                self._head_bytes += len(data)
                if self._head_bytes > self._max_header_bytes:
                    self._refuse(HeadersTooLarge())
            case "between" if self._is_answered and self._deadline is None:
                # The data has cancelled the keep-alive timeout, but may be empty lines, which begin no request.
                self._set_deadline(self.header_seconds)
            case "body" if self._unread_bytes > (self.linger_bytes if self._is_answered else self._max_header_bytes):
                # Endless trailers, or a body that the application does not read.
                self.transport.abort()
            case _:
                pass

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage, self._head_bytes = "head", 0
        self._set_deadline(self.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        # The parser also reports trailers here. A proxy in front has not checked them, so they must not become headers.
        if self._stage == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        self._stage, self._unread_bytes = "body", 0
        self._forget_deadline()
        if self.parser.should_upgrade():
            # The parser reads no body of an upgrade: the bytes that follow would become the next request.
            self._refuse(BadRequest("Upgrade: this server supports no other protocol."))
        else:
            super().on_headers_complete()
            lengths = [int(value) for name, value in self.headers if name == b"content-length"]
            self._rest_bytes = lengths[0] if lengths else float("inf")
            self.cycle.send = partial(self._send, self.cycle)  # type: ignore[method-assign] # uvicorn reads it when the task starts

    def on_body(self, body: bytes) -> None:
        self._rest_bytes -= len(body)
        if not self._refused:
            if not self._is_answered:
                self._unread_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            self._stage = "between"
            self._forget_deadline()
            super().on_message_complete()
            if self._is_last and self._is_answered:
                self._hang_up()

    def on_response_complete(self) -> None:
        is_unread = not self.pipeline and self.cycle is not None and self.cycle.more_body
        if self._is_last:
            # No pipelined request may start after a response with `Connection: close`.
            self.pipeline.clear()
        super().on_response_complete()
        self._unread_bytes = 0
        self._watch_reader()
        if self.transport.is_closing():
            self._forget_deadline()
        elif is_unread:
            self._set_deadline(self.linger_seconds)
        elif self._is_last:
            self._hang_up()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                # An aborted response never completes.
                self._watch_reader()

        super()._start_asgi_task(cycle, watched)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            # The client is still reading its response, and closing would wait for that without a limit.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    async def _send(self, cycle: RequestResponseCycle, message: "ASGISendEvent") -> None:
        # Not the parser's version: the parser may have read the next request already.
        if cycle.scope["http_version"] == "1.0":
            self._leave_out_chunks(cycle, message)
        if (
            message["type"] == "http.response.start"
            and cycle.keep_alive
            and cycle.more_body
            and self._rest_bytes > self.linger_bytes
        ):
            self._is_last = True
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await RequestResponseCycle.send(cycle, message)
            # uvicorn would close the connection right after the response; we close it once the body has been read.
            cycle.keep_alive = True
        else:
            await RequestResponseCycle.send(cycle, message)

    def _leave_out_chunks(self, cycle: RequestResponseCycle, message: "ASGISendEvent") -> None:
        """HTTP/1.0 has no chunks: the end of the connection ends a response of unknown length."""
        if message["type"] == "http.response.start":
            if all(name.lower() != b"content-length" for name, _ in message.get("headers", [])):
                cycle.chunked_encoding = False
                self._ends_with_connection = cycle
        elif message["type"] == "http.response.body" and self._ends_with_connection is cycle:
            cycle.expected_content_length = len(message.get("body", b""))

    @property
    def _max_header_bytes(self) -> int:
        return self.config.h11_max_incomplete_event_size or MAX_HEADER_BYTES

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _set_deadline(self, seconds: float) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(seconds, self._take_too_long)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _take_too_long(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if not self._is_answered:
            # The next request waits until the current one is answered, so its deadline is extended.
            self._set_deadline(self.header_seconds)
        elif self._stage == "head":
            self._refuse(RequestTimedOut())
        else:
            self.transport.close()

    def _hang_up(self) -> None:
        """Close the connection, and ignore further requests in the data that is being parsed."""
        self._refused = True
        self.transport.close()

    def _watch_reader(self) -> None:
        """Abort the connection if the client reads nothing of the write buffer for ``stalled_seconds``."""
        if self._stall is None and (waiting := self.transport.get_write_buffer_size()):
            self._stall = self.loop.call_later(self.stalled_seconds, self._check_reader, waiting)

    def _check_reader(self, waited: int) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size() == waited:
            self.transport.abort()
        else:
            self._watch_reader()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's sentence, for what its parser refuses
        self._refuse(BadRequest("This is not a valid HTTP request."))

    def _refuse(self, error: ChatError) -> None:
        """Send an error in the usual shape, and close the connection; the application never sees the request."""
        self._refused = True
        if self._is_answered:
            request_id = uuid4().hex
            answer: dict[str, Any] = {"code": error.code, "message": error.message, "request_id": request_id}
            body = json.dumps(answer).encode()
            head = (
                f"HTTP/1.1 {error.status} {error.code}\r\ncontent-type: application/json\r\n"
                f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        # Otherwise the response to the previous request is being written, and must not be interrupted by another.
        self.transport.close()
