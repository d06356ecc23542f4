"""Compares the latency of the same requests in a small and in a large database, through the HTTP API.

Two servers run, one for each database, and are measured in turn. A ratio of 1 means that the size does not matter.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.counters import connection_to
from benchmarks.scale_rows import FIRST_ORDINARY_USER, HEAVY_USER, LONG_USER, THREADS, Filled, fill, thread_id
from benchmarks.sides import OURS, Side, running, script
from chatkit_postgres.db import migrations
from tests.support.processes import ModelServer

ROUNDS = 200
WARM_UP = 10
PAGE = 20


@dataclass(frozen=True)
class Place:
    """A server, and the content of its database."""

    side: Side
    filled: Filled

    def ordinary(self, number: int) -> tuple[int, str]:
        """An ordinary owner and one of the owner's threads; another for each number."""
        user = FIRST_ORDINARY_USER + number * 7919 % self.filled.ordinary_users
        return user, thread_id(user, number % THREADS)

    def heavy(self, number: int) -> tuple[int, str]:
        return HEAVY_USER, thread_id(HEAVY_USER, number * 7919 % self.filled.heavy_threads)

    def long(self, _: int) -> tuple[int, str]:
        return LONG_USER, thread_id(LONG_USER, 0)


Whose = Callable[[Place, int], tuple[int, str]]


async def get_thread(side: Side, user: int, thread: str) -> None:
    await side.call(user, "threads.get_by_id", thread_id=thread)


async def list_threads(side: Side, user: int, _: str) -> None:
    await side.call(user, "threads.list", limit=PAGE, order="desc")


async def list_items(side: Side, user: int, thread: str) -> None:
    await side.call(user, "items.list", thread_id=thread, limit=PAGE, order="desc")


async def turn(side: Side, user: int, _: str) -> None:
    await side.say(user, script(1))


@dataclass(frozen=True)
class Measure:
    title: str
    act: Callable[[Side, int, str], Awaitable[None]]
    heavy: Whose
    """The heavy owner, or the long thread."""


# The turns come last: each adds a thread.
MEASURES = [
    Measure("threads.list, first page", list_threads, Place.heavy),
    Measure("threads.get_by_id", get_thread, Place.heavy),
    Measure("threads.get_by_id, long thread", get_thread, Place.long),
    Measure("items.list, newest page, long thread", list_items, Place.long),
    Measure("threads.create, answer of one word", turn, Place.heavy),
]


async def measure(database: URL, directory: Path, small: int, large: int) -> None:
    model = ModelServer()
    try:
        async with AsyncExitStack() as stack:
            places = []
            for messages in (small, large):
                filled = Filled(messages)
                url = await _filled_database(database, filled)
                side = await stack.enter_async_context(running(OURS, url, model, directory / f"messages-{messages}"))
                places.append(Place(side, filled))
            print(f"\n{'median of ' + str(ROUNDS) + ', ms':38}{'ordinary owner':>27}{'heavy owner, long thread':>33}")
            print(f"{'messages':38}" + f"{small:>9}{large:>10}{'ratio':>8}" * 2 + f"{'heavy/ordinary':>16}")
            for what in MEASURES:
                small_ordinary, large_ordinary, small_heavy, large_heavy = await _medians(what, places)
                columns = "".join(
                    f"{one:9.2f}{two:10.2f}{two / one:8.2f}"
                    for one, two in ((small_ordinary, large_ordinary), (small_heavy, large_heavy))
                )
                print(f"{what.title:38}{columns}{large_heavy / large_ordinary:16.2f}")
    finally:
        model.close()


async def _medians(what: Measure, places: Sequence[Place]) -> list[float]:
    """Milliseconds for the ordinary owner in the small and in the large database, and the same for the heavy owner.

    The four are measured in each round, because the machine's speed varies, and each comes first in turn.
    """
    cases: list[tuple[Whose, Place, list[float]]] = [
        (whose, place, []) for whose in (Place.ordinary, what.heavy) for place in places
    ]
    for number in range(-WARM_UP, ROUNDS):
        first = number % len(cases)
        for whose, place, times in cases[first:] + cases[:first]:
            user, thread = whose(place, number)
            started = time.perf_counter()
            await what.act(place.side, user, thread)
            if number >= 0:
                times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) for _, _, times in cases]


async def _filled_database(database: URL, filled: Filled) -> URL:
    name = f"messages_{filled.messages}"
    async with connection_to(database) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    url = database.set(database=name)
    await asyncio.to_thread(migrations.upgrade, url)
    started = time.perf_counter()
    async with connection_to(url) as connection:
        await fill(connection, filled)
        counts = [
            f"{await connection.fetchval(f'SELECT count(*) FROM {table}')} {title}"  # noqa: S608 - names from below
            for table, title in [("chat_messages", "messages"), ("chat_sessions", "threads"), ("chat_users", "users")]
        ]
        size = await connection.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
    print(f"{', '.join(counts)}, {size}, filled in {time.perf_counter() - started:.0f} s")
    return url
