"""Where the bytes of files are stored."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from chatkit_postgres.errors import NotFound, NotSupported
from chatkit_postgres.store.attachments import NO_FILE


class Storage(ABC):
    """Objects by keys of ours. Raises StorageUnavailable when it cannot be reached."""

    def __init__(self, on_failure: Callable[[str], object] = lambda _: None) -> None:
        """``on_failure`` is called with the name of each operation that fails."""
        self._on_failure = on_failure

    @abstractmethod
    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:
        """Whole or not at all, and on the disk when this returns. The type and the disposition are for those who fetch
        it from a bucket directly."""

    @abstractmethod
    async def open(self, key: str) -> tuple[int, AsyncIterator[bytes]]:
        """Its length and its bytes, piece by piece. Raises NotFound."""
        ...

    @abstractmethod
    async def remove_all(self, key: str) -> int:
        """Every object whose key begins with ``key/``; how many there were."""
        ...

    @abstractmethod
    async def remove(self, key: str) -> None:
        """One object, if it is there."""

    @abstractmethod
    async def address(self, key: str, seconds: int) -> str | None:
        """Where a browser may fetch it from the bucket itself; None for a directory."""
        ...

    async def read(self, key: str, max_bytes: int) -> bytes:
        """The first bytes of an object. Raises NotFound."""
        _, pieces = await self.open(key)
        data = bytearray()
        async for piece in pieces:
            data += piece
            if len(data) >= max_bytes:
                break
        return bytes(data[:max_bytes])

    async def look(self) -> None:
        """Write something, read it, remove it. Raises StorageUnavailable."""
        key = f"look/{secrets.token_hex(8)}"
        await self.put(f"{key}/look", b"look", content_type="text/plain", disposition="attachment")
        await self.read(f"{key}/look", 10)
        await self.remove_all(key)


class NoStorage(Storage):
    """Where files are not set up. Raises NotSupported for what would be stored."""

    async def put(self, key: str, data: BinaryIO | bytes, *, content_type: str, disposition: str) -> None:  # noqa: ARG002
        raise NotSupported

    async def open(self, key: str) -> tuple[int, AsyncIterator[bytes]]:  # noqa: ARG002
        raise NotFound(NO_FILE)

    async def remove_all(self, key: str) -> int:  # noqa: ARG002
        return 0

    async def remove(self, key: str) -> None: ...

    async def address(self, key: str, seconds: int) -> str | None:  # noqa: ARG002
        return None

    async def look(self) -> None: ...
