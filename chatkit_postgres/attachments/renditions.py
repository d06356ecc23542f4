"""Derives a preview from an image, and the text from a PDF, when a file is uploaded.

Both are made in processes of their own (``image_preview.py``, ``pdf_text.py``), because a file of a few kilobytes can
consume minutes and gigabytes. Few of them run at once, and one for each user, so that one user cannot block all others.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from chatkit_postgres.attachments import image_preview
from chatkit_postgres.db import wait_policy
from chatkit_postgres.errors import FileRefused, Unavailable
from chatkit_postgres.observability.logs import get_logger

MAX_SIDE = 1568
"""Pixels: enough to read a screenshot. Model servers scale larger images down themselves."""
MAX_PREVIEW_BYTES = 4 * MAX_SIDE * MAX_SIDE + 64 * 1024
"""Maximum of a preview, which can be larger than its image: the bytes of its pixels, and what is around them."""
MAX_TEXT_CHARACTERS = 400_000
PROGRAM_SECONDS = 30
WAIT_SECONDS = 30
AT_ONCE = 2
"""Maximum number of processes for each kind of rendition."""

_HERE = Path(__file__).parent

logger = get_logger(__name__)


@dataclass(frozen=True)
class Preview:
    data: bytes
    source_type: str
    """The detected type of the original image."""


class Renditions:
    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._images = _Slots()
        self._documents = _Slots()

    async def preview(self, file: BinaryIO, user_id: str) -> Preview:
        """A new image that contains only the pixels. Raises FileRefused; Unavailable if too many uploads wait."""
        async with self._images.hold(user_id):
            code, made = await _run("image_preview.py", file, self._max_pixels, MAX_SIDE)
        if code == image_preview.TOO_MANY_PIXELS:
            raise FileRefused(f"The image has more than {self._max_pixels} pixels.")
        if code != 0:
            raise FileRefused("The file is not an image that can be read.")
        source_type, _, data = made.partition(b"\n")
        return Preview(data, source_type.decode())

    async def text_of_pdf(self, file: BinaryIO, user_id: str) -> bytes | None:
        """The text as UTF-8; None if there is none, or extracting it exceeds the limits. Raises Unavailable."""
        async with self._documents.hold(user_id):
            code, text = await _run("pdf_text.py", file, MAX_TEXT_CHARACTERS)
        return text if code == 0 and text.strip() else None


class _Slots:
    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._own: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, user_id: str) -> AsyncGenerator[None, None]:
        own = self._own.setdefault(user_id, asyncio.Lock())
        # An upload may be refused; a running turn has a time limit of its own, as for a connection.
        seconds = WAIT_SECONDS if wait_policy.get().seconds is not None else None
        try:
            async with asyncio.timeout(seconds):
                await own.acquire()
        except TimeoutError:
            raise Unavailable from None
        try:
            try:
                async with asyncio.timeout(seconds):
                    await self._all.acquire()
            except TimeoutError:
                raise Unavailable from None
            try:
                yield
            finally:
                self._all.release()
        finally:
            own.release()


def content_type_of(preview: bytes) -> str:
    """The type of a preview, by its first bytes."""
    return "image/png" if preview.startswith(b"\x89PNG") else "image/jpeg"


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


async def _run(program: str, file: BinaryIO, *arguments: int) -> tuple[int, bytes]:
    """The program's exit code and output."""
    given = await asyncio.to_thread(_whole, file)
    process = await asyncio.create_subprocess_exec(
        # Isolated from our directory (-I) and from our environment, which holds secrets.
        *(sys.executable, "-I", str(_HERE / program), *map(str, arguments)),
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    made = b""
    try:
        with suppress(TimeoutError):
            made, _ = await asyncio.wait_for(process.communicate(given), PROGRAM_SECONDS)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        logger.info("no_rendition", program=program, exit_code=process.returncode)
    return process.returncode or 0, made
