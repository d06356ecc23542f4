"""A dump of hosted threads: a file for each thread, with the objects of the API as they were sent.

``threads/cthr_1.jsonl`` has the thread on its first line, and its items, in their order, on the others. A file has its
name when it is whole.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chatkit_postgres.user_data.hosted.source import HostedThread, Json

THREADS = "threads"


class BadDumpError(Exception):
    """A file of the dump is damaged; the message names it."""


class Dump:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = directory / THREADS

    def create(self) -> None:
        """Only its owner may read it. Raises OSError."""
        for path in (self._directory, self._threads):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def items_of(self, thread_id: str) -> Sequence[Json]:
        """Those that are saved and final: none if one of them was still going on, or if the file is damaged."""
        try:
            items = self._read(self._path(thread_id)).items
        except (OSError, BadDumpError):
            return ()
        is_final = all(item.get("id") and item.get("status") != "in_progress" for item in items)
        return items if is_final else ()

    def save(self, thread: HostedThread) -> None:
        """Raises OSError."""
        handle, part = tempfile.mkstemp(prefix=".", dir=self._threads)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                for line in (thread.thread, *thread.items):
                    # With escapes, because a lone surrogate has no bytes in UTF-8.
                    file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(self._path(str(thread.thread.get("id"))))
        finally:
            Path(part).unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """How many threads there are."""
        return sum(1 for _ in self._threads.glob("*.jsonl"))

    def threads(self) -> Iterator[HostedThread | BadDumpError]:
        """By their names; the error in place of a file that is damaged. Raises OSError."""
        for path in sorted(self._threads.glob("*.jsonl")):
            try:
                yield self._read(path)
            except BadDumpError as error:
                yield error

    def _path(self, thread_id: str) -> Path:
        return self._threads / f"{quote(thread_id, safe='')}.jsonl"

    @staticmethod
    def _read(path: Path) -> HostedThread:
        lines: list[Any] = []
        try:
            with path.open(encoding="utf-8") as file:
                lines += map(json.loads, file)
        except (ValueError, RecursionError):
            raise BadDumpError(f"{path.name}: line {len(lines) + 1} is no JSON in UTF-8.") from None
        if not lines or not all(isinstance(line, dict) for line in lines):
            raise BadDumpError(f"{path.name}: this is no thread of a dump.")
        return HostedThread(lines[0], lines[1:])
