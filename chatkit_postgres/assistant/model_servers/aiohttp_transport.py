"""An httpx2 transport over aiohttp: reading a token costs a fifth of what httpx2's own transport takes.

Unlike the openai client's adapter (DefaultAioHttpClient), it accepts header lines over 8 KiB, limits the time for
sending, maps aiohttp's errors to httpx2's, and delivers what arrived just before a connection broke (decision 0013).
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx2
import yarl

from chatkit_postgres.assistant.model_servers.proxies import Proxies

MAX_RETRY_AFTER_SECONDS = 20
"""A user is waiting: a provider that asks for a longer wait is reported as busy. The stock client waits up to 120 s."""
MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 2**17
KEEP_ALIVE_SECONDS = 4
"""uvicorn, and so many a model server, closes an idle connection after five seconds."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self._proxy_for = Proxies(getproxies()).url_for
        self._tls = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._session is None or self._loop is not asyncio.get_running_loop():
            # A session belongs to the event loop that it is made in, which may be closed by now.
            with suppress(RuntimeError):
                await self.aclose()
            self._loop = asyncio.get_running_loop()
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
        # The credentials of a URL are in the headers by now, and aiohttp rejects a request with both.
        url = yarl.URL(str(request.url.copy_with(username=None, password=None)), encoded=True)
        # Let the event loop notice a connection that the server has closed, before it is reused.
        await asyncio.sleep(0)
        with _httpx2_errors(request):
            async with asyncio.timeout(None if None in limits else sum(limits)):
                response = await self._session.request(
                    request.method,
                    url,
                    headers=request.headers.multi_items(),
                    data=io.BytesIO(body) if body else None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(connect=seconds.get("connect"), sock_read=seconds.get("read")),
                    proxy=self._proxy_for(request.url),
                )
        if response.connection is not None and response.connection.protocol is not None:
            # From here on _next limits each read; aiohttp would set a timer anew for each piece that arrives.
            response.connection.protocol.read_timeout = None
        headers = httpx2.Headers(response.raw_headers)
        if _retry_after(headers) > MAX_RETRY_AFTER_SECONDS:
            headers["x-should-retry"] = "false"
        # The request itself holds the whole history, which is not kept in memory while the answer streams.
        stream = _Body(response, httpx2.Request(request.method, request.url), seconds.get("read"))
        return httpx2.Response(response.status, headers=headers, stream=stream, request=request)

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
                # aiohttp does not return buffered data while its reader has an error.
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
    """Map aiohttp's errors to httpx2's, which the openai client retries."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientHttpProxyError as error:
        # The error's own text contains the password of the proxy.
        raise httpx2.ProxyError(f"{error.status} {error.message}", request=request) from None
    except aiohttp.ClientError as error:
        raise httpx2.NetworkError(str(error), request=request) from error
    except ValueError as error:
        raise httpx2.LocalProtocolError(str(error), request=request) from error


def _retry_after(headers: httpx2.Headers) -> float:
    """The delay in seconds, parsed as by the openai client; 0 if there is none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) * unit
    with suppress(OverflowError, ValueError):
        if date := parsedate_tz(headers.get("retry-after", "")):
            return mktime_tz(date) - time.time()
    return 0
