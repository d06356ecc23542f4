"""Stores files in a directory or a bucket, with the obstore library, which the extra `files` installs."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, S3Store

from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.errors import NotFound, StorageUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.attachments import NO_FILE

SLICE_BYTES = 64 * 1024
REQUEST_SECONDS = 30
"""The timeout for a response, and for each chunk of it."""
UPLOAD_SECONDS = 50
"""Shorter than the usual timeouts of proxies."""

logger = get_logger(__name__)


if TYPE_CHECKING:
    # Exists in the type stubs only.
    from obstore import BytesStream


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket. Without an access key, credentials come from the usual sources: the web identity of a
    pod, or the role of a machine."""

    name: str
    prefix: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


class ObjectStorage(Storage):
    def __init__(
        self,
        store: LocalStore | S3Store | MemoryStore,
        on_failure: Callable[[str], object] = lambda _: None,
        *,
        directory: Path | None = None,
    ) -> None:
        super().__init__(on_failure)
        self._store = store
        self._directory = directory

    @classmethod
    def in_directory(cls, directory: Path, on_failure: Callable[[str], object] = lambda _: None) -> "ObjectStorage":
        """Creates the directory, readable by this user only. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(LocalStore(directory, automatic_cleanup=True), on_failure, directory=directory)

    @classmethod
    def in_bucket(cls, bucket: Bucket, on_failure: Callable[[str], object] = lambda _: None) -> "ObjectStorage":
        given = {
            "prefix": bucket.prefix,
            "endpoint": bucket.endpoint,
            "region": bucket.region,
            "access_key_id": bucket.access_key_id,
            "secret_access_key": bucket.secret_access_key,
            "session_token": bucket.session_token,
        }
        store = S3Store(
            bucket.name,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type] # mypy checks it against every keyword
            client_options={
                "allow_http": (bucket.endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                # For a whole download, whose reader may be slow.
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
        )
        return cls(store, on_failure)

    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:
        attributes = {"Content-Type": content_type, "Content-Disposition": disposition}
        with self._reached("put"):
            async with asyncio.timeout(UPLOAD_SECONDS):
                await obstore.put_async(
                    self._store, key, data, attributes=attributes if isinstance(self._store, S3Store) else None
                )
            if self._directory is not None:
                await asyncio.to_thread(_flush, self._directory, key)

    async def open(self, key: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        with self._reached("get"):
            async with asyncio.timeout(REQUEST_SECONDS):
                found = await obstore.get_async(self._store, key)
                return found.meta["size"], self._chunks(found.stream(min_chunk_size=SLICE_BYTES))

    async def remove(self, key: str) -> None:
        with suppress(NotFound), self._reached("delete"):
            async with asyncio.timeout(REQUEST_SECONDS):
                await obstore.delete_async(self._store, key)

    async def remove_all(self, key: str) -> int:
        found = await self.names(key)
        for name in found:
            # Another replica may have removed it already.
            await self.remove(f"{key}/{name}")
        return len(found)

    async def names(self, key: str) -> list[str]:
        with self._reached("list"):
            async with asyncio.timeout(REQUEST_SECONDS):
                found = await obstore.list(self._store, prefix=key).collect_async()
        return [entry["path"].removeprefix(f"{key}/") for entry in found if entry["path"].startswith(f"{key}/")]

    async def signed_url(self, key: str, seconds: int) -> str | None:
        if not isinstance(self._store, S3Store):
            return None
        with self._reached("sign"):
            return await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))

    @contextmanager
    def _reached(self, operation: str) -> Iterator[None]:
        """Map the library's errors. NotFound only for reads and deletions: a failing write lacks the bucket."""
        try:
            yield
        except (BaseError, OSError, TimeoutError) as error:
            if isinstance(error, FileNotFoundError) and operation in {"get", "delete"}:
                raise NotFound(NO_FILE) from None
            reason = _storage_reason(error)
            log_failure(logger, "storage_failed", error, operation=operation, reason=reason)
            self._on_failure(operation)
            raise StorageUnavailable(reason=reason) from None

    async def _chunks(self, stream: "BytesStream") -> AsyncGenerator[bytes, None]:
        chunks = aiter(stream)
        while True:
            with self._reached("read"):
                async with asyncio.timeout(REQUEST_SECONDS):
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        return
            yield bytes(chunk)


def _storage_reason(error: BaseException) -> str:
    """The cause in the library's message, without URLs and keys."""
    message = str(error)
    if (number := re.search(r"\(os error (\d+)\)", message)) is not None:
        return os.strerror(int(number[1]))
    found = re.search(r"<Code>\w+</Code>|status code: \d+|error sending request|timed out", message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return found[0] if found else type(error).__name__


def _flush(directory: Path, key: str) -> None:
    """Write a file and its directories to the disk, because the library does not, and `put` promises it."""
    if os.name == "nt":
        return
    path = directory / key
    for each in (path, path.parent, path.parent.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
