"""The form of an export: a ZIP file with the records as JSON Lines, and the bytes of files.

``data.jsonl`` has one record a line. The first is ``{"type": "export", "format": "chatkit-postgres", "version": 1,
"user": "alice"}``;
``docs/your-data.md`` describes the others. ``files/000001`` is the content of the first attachment that has bytes,
``files/000001.preview`` and ``files/000001.text`` what was made of it. Equal data make equal bytes.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

VERSION = 1
HEADER: dict[str, Any] = {"type": "export", "format": "chatkit-postgres", "version": VERSION}
DATA = "data.jsonl"
ENDINGS = ("", ".preview", ".text")
"""The endings of the names of a file and its renditions, here and in the storage."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_MAX_LINE_BYTES = 64 * 1024 * 1024


class BadArchiveError(Exception):
    """Its message is for the user."""


class Outbox:
    """What a ZIP file is written to, as to a socket: not seekable, so that its bytes depend on its content alone."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def new_archive(outbox: Outbox) -> zipfile.ZipFile:
    sink: Any = outbox
    return zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, allowZip64=True)


def new_entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return archive.open(entry, "w", force_zip64=True)


def line_of(record: Mapping[str, Any] | str, kind: str = "") -> bytes:
    """A record, or the JSON of one that begins without its type."""
    if isinstance(record, str):
        return b'{"type":"' + kind.encode() + b'",' + record[1:].encode() + b"\n"
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Records(Protocol):
    """What can be imported."""

    @property
    def size(self) -> int:
        """Bytes of the records."""

    def records(self) -> Iterator[tuple[int, dict[str, Any], int]]:
        """The number of each line, its record, and the bytes up to its end. Raises BadArchiveError."""

    def has(self, name: str) -> bool:
        """Whether there are bytes of this name."""

    def open(self, name: str) -> IO[bytes]:
        """The bytes of a file that there is."""


class ArchiveReader:
    """Reads a ZIP file of ours, or JSON Lines without files."""

    def __init__(self, path: Path) -> None:
        """Raises BadArchiveError for what is neither, OSError for what cannot be read."""
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            try:
                self._zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise BadArchiveError(f"{path} is not a whole ZIP file: {error}.") from None
            if DATA not in self._zip.namelist():
                raise BadArchiveError(f"{path} has no {DATA}.")

    @property
    def user(self) -> str | None:
        """Who was exported, if the first record says so. Raises BadArchiveError."""
        first = next(self.records(), None)
        named = first[1].get("user") if first is not None and first[1]["type"] == HEADER["type"] else None
        return named if isinstance(named, str) else None

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return self._zip.getinfo(DATA).file_size if self._zip is not None else self._path.stat().st_size

    def records(self) -> Iterator[tuple[int, dict[str, Any], int]]:
        """The number of each line, its record, and the bytes up to its end. Raises BadArchiveError."""
        read = 0
        with self._lines() as lines:
            number = 0
            while line := _line(lines, number):
                number += 1
                read += len(line)
                if not line.strip():
                    continue
                yield number, _record(line, number), read

    def _lines(self) -> IO[bytes]:
        if self._zip is None:
            return self._path.open("rb")
        try:
            return self._zip.open(DATA)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise BadArchiveError(f"{self._path}: {DATA} cannot be read: {error}.") from None

    def has(self, name: str) -> bool:
        return self._zip is not None and name in self._zip.NameToInfo

    def open(self, name: str) -> IO[bytes]:
        """The bytes of a file that the archive has."""
        if self._zip is None:
            raise KeyError(name)
        return self._zip.open(name)

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


def _line(lines: IO[bytes], number: int) -> bytes:
    try:
        line = lines.readline(_MAX_LINE_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise BadArchiveError(f"line {number + 1}: the file is damaged: {error}.") from None
    if len(line) == _MAX_LINE_BYTES:
        raise BadArchiveError(f"line {number + 1} is longer than {_MAX_LINE_BYTES} bytes.")
    return line


def _record(line: bytes, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadArchiveError(f"line {number} is no JSON: {error}.") from None
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise BadArchiveError(f'line {number} is no record: an object with a "type".')
    return record
