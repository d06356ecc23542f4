"""The network under the openai client: aiohttp below httpx2, where a piece of text costs a fifth of what it costs
through httpx2's own, with bounds and errors that the two do not have together (see docs/decisions/0013)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import httpx2
from openai import DefaultAioHttpClient
from openai._vendor.httpx_aiohttp.transport import AiohttpResponseStream, AiohttpTransport, map_aiohttp_exceptions


class ProxyRefused(ValueError):
    """The environment names a proxy that cannot be used."""


class _Pieces(AiohttpResponseStream):
    def __init__(self, response: aiohttp.ClientResponse, seconds: float | None) -> None:
        super().__init__(response)
        self._content = response.content
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx2_tells():
            try:
                while piece := await self._next():
                    yield piece
            except aiohttp.ClientError:
                # What came before the connection broke: aiohttp would keep it.
                if rest := self._content._read_nowait(-1):  # noqa: SLF001 - see docs/decisions/0006
                    yield rest
                raise

    async def _next(self) -> bytes:
        try:
            # aiohttp forgets its own time-out, and whoever waits, when what comes is no HTTP.
            async with asyncio.timeout(self._seconds):
                return await self._content.readany()
        except TimeoutError as error:
            raise httpx2.ReadTimeout(str(error)) from error


class _Transport(AiohttpTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        seconds = request.extensions.get("timeout", {})
        parts = [seconds.get(part) for part in ("connect", "write", "read")]
        with _told_as_httpx2_tells():
            try:
                # There is no time-out for a server that stops reading.
                async with asyncio.timeout(None if None in parts else sum(parts)):
                    response = await super().handle_async_request(request)
            except TimeoutError as error:
                raise httpx2.WriteTimeout(str(error)) from error
        inner: Any = response.stream
        response.stream = _Pieces(inner._aiohttp_response, seconds.get("read"))  # noqa: SLF001 - see docs/decisions/0006
        return response


class AiohttpClient(DefaultAioHttpClient):
    """httpx2 gives its transports everything by name."""

    def _init_transport(self, *_: Any, **given: Any) -> httpx2.AsyncBaseTransport:
        own = given.pop("transport", None)
        return own if own is not None else _Transport(**given)

    def _init_proxy_transport(self, proxy: httpx2.Proxy, *_: Any, **given: Any) -> httpx2.AsyncBaseTransport:
        if proxy.url.scheme not in {"http", "https"}:
            # aiohttp would send it HTTP, with the key in it.
            raise ProxyRefused(
                f"a proxy of the kind {proxy.url.scheme}:// cannot be used for models, only http and https"
            )
        return _Transport(proxy=proxy, **given)


@contextmanager
def _told_as_httpx2_tells() -> Iterator[None]:
    """Which the openai client knows, and tries again."""
    try:
        with map_aiohttp_exceptions():
            yield
    except httpx2.ConnectTimeout as error:
        # The map calls every connection that fails one that took too long.
        if isinstance(error.__cause__, TimeoutError):
            raise
        raise httpx2.ConnectError(str(error)) from error.__cause__
    except aiohttp.ClientError as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
