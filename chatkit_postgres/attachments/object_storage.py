"""Bytes of files in a directory or a bucket, through the obstore library, which the extra `files` installs."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
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
"""For an answer, and for each piece of one."""
UPLOAD_SECONDS = 50
"""Below what proxies wait for an answer."""

logger = get_logger(__name__)


if TYPE_CHECKING:
    # Not to be had when the program runs.
    from obstore import BytesStream


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket. Without a key, the usual places are asked: the web identity of a pod, the role of a
    machine."""

    name: str
    prefix: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


class ObjectStorage(Storage):
    """In a directory, or in a bucket that speaks S3."""

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
        """Makes the directory, for our eyes only. Raises OSError."""
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
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type] # as its types say, one by one
            client_options={
                "allow_http": (bucket.endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                # Over all of a download, and the one who reads it may be slow.
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
        )
        return cls(store, on_failure)

    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:
        """Whole or not at all, and on the disk when this returns. The type and the disposition are for those who fetch
        it from a bucket directly."""
        attributes = {"Content-Type": content_type, "Content-Disposition": disposition}
        with self._reached("put"):
            async with asyncio.timeout(UPLOAD_SECONDS):
                await obstore.put_async(
                    self._store, key, data, attributes=attributes if isinstance(self._store, S3Store) else None
                )
        if self._directory is not None:
            await asyncio.to_thread(_flush, self._directory, key)

    async def open(self, key: str) -> tuple[int, AsyncIterator[bytes]]:
        """Its length and its bytes, piece by piece. Raises NotFound."""
        with self._reached("get"):
            async with asyncio.timeout(REQUEST_SECONDS):
                found = await obstore.get_async(self._store, key)
                return found.meta["size"], self._pieces(found.stream(min_chunk_size=SLICE_BYTES))

    async def remove(self, key: str) -> None:
        """One object, if it is there."""
        with suppress(NotFound), self._reached("delete"):
            async with asyncio.timeout(REQUEST_SECONDS):
                await obstore.delete_async(self._store, key)

    async def remove_all(self, key: str) -> int:
        """Every object whose key begins with ``key/``; how many there were."""
        with self._reached("list"):
            async with asyncio.timeout(REQUEST_SECONDS):
                found = [entry["path"] for entry in await obstore.list(self._store, prefix=key).collect_async()]
        for path in found:
            # Another replica may be quicker.
            await self.remove(path)
        return len(found)

    async def address(self, key: str, seconds: int) -> str | None:
        """Where a browser may fetch it from the bucket itself; None for a directory."""
        if not isinstance(self._store, S3Store):
            return None
        with self._reached("sign"):
            return await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))

    @contextmanager
    def _reached(self, operation: str) -> Iterator[None]:
        """Around a call of the library. Only what is read can be absent: where something is written, it is a bucket."""
        try:
            yield
        except (BaseError, OSError, TimeoutError) as error:
            if isinstance(error, FileNotFoundError) and operation in {"get", "delete"}:
                raise NotFound(NO_FILE) from None
            log_failure(logger, "storage_failed", error, operation=operation, reason=_storage_reason(error))
            self._on_failure(operation)
            raise StorageUnavailable from None

    async def _pieces(self, stream: "BytesStream") -> AsyncIterator[bytes]:
        pieces = aiter(stream)
        while True:
            with self._reached("read"):
                async with asyncio.timeout(REQUEST_SECONDS):
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        return
            yield bytes(piece)


def _storage_reason(error: BaseException) -> str:
    """The cause in the library's message, without URLs and keys."""
    said = str(error)
    found = re.search(r"\(os error \d+\)|<Code>\w+</Code>|status code: \d+|error sending request|timed out", said)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return found[0] if found else type(error).__name__


def _flush(directory: Path, key: str) -> None:
    """The library leaves it to the operating system when a file is written; what we tell is saved, is saved."""
    if os.name == "nt":
        return
    path = directory / key
    for each in (path, path.parent, path.parent.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
