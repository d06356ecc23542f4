"""Fetches a key set from its issuer over HTTP, or reads it from a file."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2

from chatkit_postgres.auth.keys import MAX_SET_BYTES, JwksError

FETCH_SECONDS = 5


def from_url(url: str) -> Callable[[], Awaitable[bytes]]:
    """Follows no redirects: only the server at the configured URL is the issuer."""

    async def load() -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx2.AsyncClient(follow_redirects=False, timeout=FETCH_SECONDS) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != 200 or "content-encoding" in response.headers:
                raise JwksError(f"the issuer answered with status {response.status_code}")
            document = bytearray()
            async for chunk in response.aiter_bytes():
                document += chunk
                if len(document) > MAX_SET_BYTES:
                    break
        return bytes(document)

    return load


def from_file(path: Path) -> Callable[[], Awaitable[bytes]]:
    """Reads the file as often as a URL would be fetched, so that changes take effect."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_SET_BYTES + 1)

    async def load() -> bytes:
        return await asyncio.to_thread(read)

    return load
