"""aiohttp below httpx2 and the openai client: reading a token costs a fifth of what it costs through httpx2's own.

The openai client's adapter (DefaultAioHttpClient) does the same but for header lines over 8 KiB, a time limit for
sending, the errors that httpx2 would raise, and what arrived just before a connection broke (docs/decisions/0013).
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

MAX_RETRY_AFTER_SECONDS = 20
"""A person waits: a provider that asks for more is busy. The openai client waits for up to two minutes."""
MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 2**17
KEEP_ALIVE_SECONDS = 5


class ProxyRefused(ValueError):
    """The environment names a proxy that cannot be used."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """aiohttp below httpx2, with limits that the openai client's own adapter has not (docs/decisions/0013)."""

    def __init__(self) -> None:
        self._proxies = {scheme: url for scheme, url in getproxies().items() if scheme in {"http", "https", "all"}}
        for url in self._proxies.values():
            if "://" in url and not url.lower().startswith(("http://", "https://")):
                # aiohttp would send it HTTP, with the key in it.
                kind = url.partition("://")[0]
                raise ProxyRefused(f"a proxy of the kind {kind}:// cannot be used for models, only http and https")
        self._tls = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._session is None:
            # Not before an event loop runs.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls, limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        seconds = request.extensions.get("timeout", {})
        limits = [seconds.get(part) for part in ("connect", "write", "read")]
        body = await request.aread()
        request.headers.pop("transfer-encoding", None)
        with _httpx2_errors(request):
            async with asyncio.timeout(None if None in limits else sum(limits)):
                response = await self._session.request(
                    request.method,
                    str(request.url),
                    headers=request.headers.multi_items(),
                    data=io.BytesIO(body) if body else None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=seconds.get("connect")),
                    proxy=self._proxy_for(request.url),
                )
        headers = httpx2.Headers(response.raw_headers)
        if _retry_after(headers) > MAX_RETRY_AFTER_SECONDS:
            headers["x-should-retry"] = "false"
        stream = _Body(response, request, seconds.get("read"))
        return httpx2.Response(response.status, headers=headers, stream=stream, request=request)

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        if not self._proxies or proxy_bypass(url.host):
            return None
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return proxy if proxy is None or "://" in proxy else f"http://{proxy}"

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request, seconds: float | None) -> None:
        self._response = response
        self._request = request
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content: Any = self._response.content
        with _httpx2_errors(self._request):
            try:
                while body := await self._next(content):
                    yield body
            except aiohttp.ClientError:
                # What arrived before the connection broke: aiohttp does not hand it out while it has an error.
                content.set_exception(None)
                if rest := content.read_nowait():
                    yield rest
                raise

    async def _next(self, content: aiohttp.StreamReader) -> bytes:
        if body := content.read_nowait():
            return body
        async with asyncio.timeout(self._seconds):
            return await content.readany()

    async def aclose(self) -> None:
        self._response.release()


@contextmanager
def _httpx2_errors(request: httpx2.Request) -> Iterator[None]:
    """Raise what the openai client knows, and tries again."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientError as error:
        raise httpx2.NetworkError(str(error), request=request) from error


def _retry_after(headers: httpx2.Headers) -> float:
    """Seconds, as the openai client reads them; 0 where there are none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) * unit
    with suppress(OverflowError, ValueError):
        if date := parsedate_tz(headers.get("retry-after", "")):
            return mktime_tz(date) - time.time()
    return 0
