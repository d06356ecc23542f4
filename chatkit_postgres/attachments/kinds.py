"""Cleans a file's display name, and checks its declared type against its content."""

import codecs
import mimetypes
import re
import unicodedata
from pathlib import PurePosixPath
from typing import BinaryIO

from chatkit_postgres.errors import FileRefused, Unprocessable
from chatkit_postgres.text import JOINERS, is_text_character

MAX_NAME_BYTES = 255
UNNAMED = "file"
ANYTHING = "application/octet-stream"
UNKNOWN = frozenset({"", ANYTHING})
"""Types that browsers send for a file they do not recognise."""

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Raster formats, which a browser displays without running scripts."""
PDF = "application/pdf"
_TEXTS = frozenset({"application/json", "application/x-ndjson", "application/yaml", "application/xml"})
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_HEAD_BYTES = 8192
_SLICE_BYTES = 256 * 1024
# Endings that Python's table lacks on some systems.
_BY_ENDING = {".md": "text/markdown", ".markdown": "text/markdown", ".csv": "text/csv", ".webp": "image/webp"}
_SPREADSHEETS_ON_WINDOWS = ("application/vnd.ms-excel", ".csv")
_FORBIDDEN_IN_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def is_image(content_type: str) -> bool:
    return content_type in IMAGES


def is_text(content_type: str) -> bool:
    return content_type.startswith("text/") or content_type in _TEXTS or content_type.endswith("+json")


def has_text(content_type: str) -> bool:
    """Whether we can extract text from files of this type."""
    return is_text(content_type) or content_type == PDF


def shown_name(given: str) -> str:
    """The last part of a path, without control characters and direction marks, shortened to 255 bytes of UTF-8 with its
    ending intact. Files are never stored under this name."""
    last = re.split(r"[/\\]", given)[-1]
    printable = "".join(" " if c.isspace() else c for c in last if c.isspace() or is_text_character(c))
    name = " ".join(printable.split()).strip(". " + JOINERS)
    if not name:
        return UNNAMED
    ending = PurePosixPath(name).suffix
    ending = ending if len(ending.encode()) <= 20 else ""
    room = MAX_NAME_BYTES - len(ending.encode())
    return name.removesuffix(ending).encode()[:room].decode(errors="ignore") + ending


def declared_type(given: str, name: str) -> str:
    """``type/subtype`` in lower case; if the client sent none, by the ending of the name. Raises Unprocessable."""
    essence = given.partition(";")[0].strip().lower()
    if any(unicodedata.category(character) == "Cc" for character in given):
        raise Unprocessable("mime_type: not a media type.")
    ending = PurePosixPath(name).suffix.lower()
    if essence in UNKNOWN or (essence, ending) == _SPREADSHEETS_ON_WINDOWS:
        essence = _BY_ENDING.get(ending) or mimetypes.guess_type(f"x{ending}")[0] or ANYTHING
    if not _TYPE.fullmatch(essence):
        raise Unprocessable("mime_type: not a media type.")
    return essence


class AcceptedTypes:
    """Patterns ``type/subtype`` and ``type/*``; without any, no files are accepted."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = frozenset(pattern.lower() for pattern in patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def check(self, content_type: str) -> None:
        """Raises FileRefused."""
        if not self._patterns & {content_type, f"{content_type.partition('/')[0]}/*", "*/*"}:
            raise FileRefused


def check_content(file: BinaryIO, content_type: str) -> None:
    """Raises FileRefused if the bytes do not match the type. Not for images: decoding them is the better check."""
    if is_text(content_type):
        _check_text(file)
        return
    if content_type == ANYTHING:
        return
    import puremagic  # noqa: PLC0415 - of the extra `files`

    file.seek(0)
    head = file.read(_HEAD_BYTES)
    try:
        found = {match.mime_type for match in puremagic.magic_string(head)}
    except (puremagic.PureError, ValueError):
        found = set()
    # Many types have no signature in their bytes; such a file is only ever served as a download.
    has_signature = any(entry.mime_type == content_type for entry in puremagic.magic_header_array)
    if content_type not in found and (found or has_signature):
        raise FileRefused("The file's content does not match its type.")


def _check_text(file: BinaryIO) -> None:
    """Raises FileRefused unless it is UTF-8, or UTF-16 with a byte-order mark, without control characters."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding_of(file.read(4)))()
    file.seek(0)
    try:
        while piece := file.read(_SLICE_BYTES):
            if _FORBIDDEN_IN_TEXT.search(decoder.decode(piece)):
                raise FileRefused("The file is not a text file.")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise FileRefused("The file is not UTF-8 text.") from None


def encoding_of(head: bytes) -> str:
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
