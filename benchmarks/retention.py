"""Deletes old conversations beside live turns: what the turns feel of it, and how long statements take.

Every user of the old conversations is gone; twenty others talk all the time, before and while they are deleted.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.clients import percentile
from benchmarks.counters import connection_to
from benchmarks.scale_rows import Filled, fill, thread_id
from benchmarks.sides import OURS, Side, running, script
from chatkit_postgres.db import Database
from chatkit_postgres.store.retention import Retention, delete_old_threads
from tests.support.processes import ModelServer

TALKERS, FIRST_TALKER = 20, 1_000_000
WORDS, DELAY = 20, 0.02
BEFORE_SECONDS = 30
LOGGED_MS = 20
DURATION = re.compile(rb"duration: ([\d.]+) ms.*?/\* chatkit:(\w+) \*/")


@dataclass(frozen=True)
class OldRows(Filled):
    """A twentieth of the messages is one thread; the others have a hundred messages each, ten threads a user."""

    def threads(self) -> list[tuple[int, str, int]]:
        long = self.messages // 20
        others = [(1 + number // 10, thread_id(1, number), 100) for number in range((self.messages - long) // 100)]
        return [(0, thread_id(0, 0), long), *others]


class Talk:
    """Users who ask again and again."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.first_words: list[float] = []
        self.failures: list[str] = []

    async def until(self, ended: asyncio.Event) -> None:
        await asyncio.gather(*(self._talk(FIRST_TALKER + number, ended) for number in range(TALKERS)))

    async def _talk(self, user: int, ended: asyncio.Event) -> None:
        thread: str | None = None
        while not ended.is_set():
            try:
                thread, first, words = await self._side.say(user, script(WORDS, DELAY), thread)
            except RuntimeError as error:
                self.failures.append(str(error))
                continue
            self.first_words.append(first)
            if words < WORDS:
                self.failures.append(f"{words} words")

    def print(self, title: str) -> None:
        p50, p95 = (1000 * percentile(self.first_words, share) for share in (0.5, 0.95))
        count = len(self.first_words)
        print(f"{title:20}{count:7} turns, {len(self.failures)} failed, first word p50 {p50:.0f} ms, p95 {p95:.0f} ms")


async def measure(database: URL, log: Path, directory: Path, messages: int) -> None:
    """``log``: PostgreSQL's."""
    model = ModelServer()
    try:
        async with connection_to(database) as connection:
            await fill(connection, OldRows(messages))
            for table in ("chat_sessions", "chat_messages", "chat_turns"):
                column = "started_at" if table == "chat_turns" else "created_at"
                age = f"UPDATE {table} SET {column} = {column} - interval '400 days'"  # noqa: S608 - names from above
                await connection.execute(age)
            await connection.execute("VACUUM (ANALYZE)")
            await connection.execute(f"ALTER SYSTEM SET log_min_duration_statement = {LOGGED_MS}")
            await connection.execute("SELECT pg_reload_conf()")
        async with running(OURS, database, model, directory) as side:
            before, beside, ended = Talk(side), Talk(side), asyncio.Event()
            asyncio.get_running_loop().call_later(BEFORE_SECONDS, ended.set)
            await before.until(ended)
            before.print("before")
            read = log.stat().st_size  # noqa: ASYNC240 - nothing else runs
            ended = asyncio.Event()
            talking = asyncio.create_task(beside.until(ended))
            started, own = time.perf_counter(), Database(database)
            deleted = await delete_old_threads(own, Retention(365))
            seconds = time.perf_counter() - started
            await own.close()
            ended.set()
            await talking
            beside.print("beside the retention")
        async with connection_to(database) as connection:
            left = await connection.fetchval(
                "SELECT count(*) FROM chat_messages WHERE created_at < now() - interval '365 days'"
            )
        print(f"{deleted} threads, {messages} messages in {seconds:.0f} s; {left} old messages are left")
        _print_longest(DURATION.findall(log.read_bytes()[read:]))  # noqa: ASYNC240 - nothing else runs
    finally:
        model.close()


def _print_longest(found: Sequence[tuple[bytes, bytes]]) -> None:
    longest = sorted(((float(duration), name.decode()) for duration, name in found), reverse=True)
    print(f"{sum(1 for duration, _ in longest if duration > 200)} statements took more than 200 ms; the longest:")
    for duration, name in longest[:5]:
        print(f"{duration:10.0f} ms  {name}")
