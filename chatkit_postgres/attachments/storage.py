"""The interface of the file storage."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import BinaryIO

from chatkit_postgres.errors import NotFound, NotSupported
from chatkit_postgres.store.attachments import NO_FILE


class Storage(ABC):
    """Stores objects under our keys. All methods raise StorageUnavailable if the storage cannot be reached."""

    def __init__(self, on_failure: Callable[[str], object] = lambda _: None) -> None:
        """``on_failure`` is called with the name of each operation that fails."""
        self._on_failure = on_failure

    @abstractmethod
    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:
        """Store an object atomically; it is on the disk when this returns. The type and the disposition are for clients
        that fetch the object directly from a bucket."""

    @abstractmethod
    async def open(self, key: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        """The length of an object, and its bytes in chunks. Raises NotFound."""
        ...

    @abstractmethod
    async def remove_all(self, key: str) -> int:
        """Remove every object whose key begins with ``key/``, and return their number."""
        ...

    @abstractmethod
    async def names(self, key: str) -> list[str]:
        """The rest of each object's key that begins with ``key/``."""
        ...

    @abstractmethod
    async def remove(self, key: str) -> None:
        """Remove one object if it exists."""

    @abstractmethod
    async def signed_url(self, key: str, seconds: int) -> str | None:
        """A signed URL for reading the object from the bucket; None for a directory."""
        ...

    async def read(self, key: str, max_bytes: int) -> bytes:
        """The first ``max_bytes`` of an object. Raises NotFound."""
        _, opened = await self.open(key)
        data = bytearray()
        async with aclosing(opened) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) >= max_bytes:
                    break
        return bytes(data[:max_bytes])

    async def probe(self) -> None:
        """Write, read and remove a test object. Raises StorageUnavailable."""
        key = f"probe/{secrets.token_hex(8)}"
        await self.put(f"{key}/probe", b"probe", content_type="text/plain", disposition="attachment")
        await self.read(f"{key}/probe", 10)
        await self.remove_all(key)


class NoStorage(Storage):
    """For a server without file storage: writing raises NotSupported, and nothing is found."""

    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:  # noqa: ARG002
        raise NotSupported

    async def open(self, key: str) -> tuple[int, AsyncGenerator[bytes, None]]:  # noqa: ARG002
        raise NotFound(NO_FILE)

    async def remove_all(self, key: str) -> int:  # noqa: ARG002
        return 0

    async def names(self, key: str) -> list[str]:  # noqa: ARG002
        return []

    async def remove(self, key: str) -> None: ...

    async def signed_url(self, key: str, seconds: int) -> str | None:  # noqa: ARG002
        return None

    async def probe(self) -> None: ...
