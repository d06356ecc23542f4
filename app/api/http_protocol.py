"""uvicorn's HTTP protocol with bounded headers.

httptools takes headers of any length at any pace, and the application is not asked before they are complete.
``serve`` uses this class; behind plain uvicorn it is named with ``--http app.api.http_protocol:BoundedHttpProtocol``.
"""

import asyncio
import json
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import ChatError, HeadersTooLarge, RequestTimedOut


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose headers grow beyond ``h11_max_incomplete_event_size`` bytes, or take too long."""

    header_seconds: float = 15
    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._take_too_long)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > (self.config.h11_max_incomplete_event_size or 64 * 1024):
                self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._take_too_long)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._forget_deadline()
        super().on_headers_complete()

    def _take_too_long(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._head_bytes:
            self._refuse(RequestTimedOut())
        else:
            self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: ChatError) -> None:
        """In the usual shape; the application never sees the request."""
        request_id = uuid4().hex
        answer: dict[str, Any] = {"code": error.code, "message": error.message, "request_id": request_id}
        body = json.dumps(answer).encode()
        head = (
            f"HTTP/1.1 {error.status} {error.code}\r\ncontent-type: application/json\r\nx-request-id: {request_id}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
