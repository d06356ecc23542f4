"""Watches the locks with which a migration keeps the service from its tables."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL

from chatkit_postgres.db.connecting import connector

# Those that block the statements of turns: https://www.postgresql.org/docs/current/explicit-locking.html
_FIND = """
SELECT l.pid, c.relname AS table, l.mode, a.xact_start
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a USING (pid)
 WHERE l.granted AND c.relname LIKE 'chat\\_%' AND c.relkind = 'r'
   AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
POLL_SECONDS = 0.003


class Locks:
    """``held``: the longest time, in seconds, by table and mode; as far as it was seen."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._is_over = threading.Event()
        self.held: dict[tuple[str, str], float] = {}
        self.looks = 0

    @contextmanager
    def watched(self) -> Iterator["Locks"]:
        thread = threading.Thread(target=lambda: asyncio.run(self._watch()))
        thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            thread.join()

    async def _watch(self) -> None:
        connection = await connector(self._url)()
        tables = {row["relname"] for row in await connection.fetch("SELECT relname FROM pg_class")}
        since: dict[tuple[object, ...], float] = {}
        try:
            while not self._is_over.is_set():
                rows = await connection.fetch(_FIND)
                now = time.monotonic()
                self.looks += 1
                # A table that the migration has made is used by nobody.
                seen = {tuple(row.values()): row for row in rows if row["table"] in tables}
                since = {key: since.get(key, now) for key in seen}
                for key, began in since.items():
                    place = (seen[key]["table"], seen[key]["mode"])
                    self.held[place] = max(self.held.get(place, 0), now - began)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()
