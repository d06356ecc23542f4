"""What is made of a file when it comes: a small image of an image, the text of a PDF."""

import asyncio
import io
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from app.errors import FileRefused
from app.observability.logs import get_logger

LONGEST_SIDE = 1568
"""Pixels. Enough to read a screenshot; larger ones are made smaller by the model servers themselves."""
MOST_TEXT_CHARACTERS = 400_000
TEXT_SECONDS = 30

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
AT_ONCE = 2
"""A large image takes four bytes a pixel, several times."""
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
)
_PDF_PROGRAM = Path(__file__).with_name("pdf_text.py")

logger = get_logger(__name__)


@dataclass(frozen=True)
class Preview:
    data: bytes
    content_type: str
    source_type: str
    """What the image really is."""


class Renditions:
    def __init__(self, *, most_pixels: int) -> None:
        self._most_pixels = most_pixels
        self._few_at_once = asyncio.Semaphore(AT_ONCE)

    async def preview(self, file: BinaryIO) -> Preview:
        """The image, made anew of nothing but its pixels. Raises FileRefused."""
        async with self._few_at_once:
            return await asyncio.to_thread(_preview, file, self._most_pixels)

    async def text_of_pdf(self, file: BinaryIO) -> bytes | None:
        """UTF-8; None if there is none to be had in the time and memory allowed."""
        async with self._few_at_once:
            document = await asyncio.to_thread(_whole, file)
            return await _extracted(document)


def content_type_of(preview: bytes) -> str:
    """Of what ``Renditions.preview`` made, by its first bytes."""
    return "image/png" if preview.startswith(b"\x89PNG") else "image/jpeg"


def _preview(file: BinaryIO, most_pixels: int) -> Preview:
    file.seek(0)
    try:
        with Image.open(file, formats=list(_FORMATS)) as image:
            # Read from its header; nothing is decoded yet.
            if image.width * image.height <= most_pixels:
                image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
                return _encoded(upright, _FORMATS[str(image.format)])
    except _UNREADABLE as error:
        logger.info("image_refused", kind=type(error).__name__)
        raise FileRefused("The file is not an image that can be read.") from None
    raise FileRefused(f"The image has more than {most_pixels} pixels.")


def _encoded(image: Image.Image, source_type: str) -> Preview:
    made = io.BytesIO()
    if image.has_transparency_data:
        image.convert("RGBA").save(made, "PNG")
        return Preview(made.getvalue(), "image/png", source_type)
    image.convert("RGB").save(made, "JPEG", quality=85)
    return Preview(made.getvalue(), "image/jpeg", source_type)


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


async def _extracted(document: bytes) -> bytes | None:
    process = await asyncio.create_subprocess_exec(
        # On its own: without our directory, and without our environment, which holds secrets.
        *(sys.executable, "-I", str(_PDF_PROGRAM), str(MOST_TEXT_CHARACTERS)),
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    text = b""
    try:
        with suppress(TimeoutError):
            text, _ = await asyncio.wait_for(process.communicate(document), TEXT_SECONDS)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        logger.info("pdf_without_text", exit_code=process.returncode)
        return None
    return text if text.strip() else None
