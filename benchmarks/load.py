"""Begins many answers, more and more at once, on our server and on the sample, one server after the other.

The server, the scripted model, PostgreSQL and the clients share two cores, so a server that needs less of them leaves
more to the others, as on a small machine. Ratios are the sample's figure divided by ours: above 1, ours is better.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.clients import Order, Report, most_descriptors, ordered, percentile
from benchmarks.counters import Counters, connection_to
from benchmarks.exchange import REFUSED, WHOLE
from benchmarks.sides import NAMES, OURS, SAMPLE, Side, running
from tests.support.processes import ModelServer

WORDS = 40
WORDS_PER_SECOND = 4
CHEAP_ROUTES = {OURS: "/health/live", SAMPLE: "/health/ready"}
# A PostgreSQL process that has become idle publishes its counters after ten seconds.
COUNTERS_SECONDS = 11
COLUMN = 14


def share_two_cores() -> None:
    """Every process that is started from now on runs on the same two cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


@dataclass(frozen=True)
class Run:
    """One server under one load."""

    report: Report
    processor_seconds: float
    commits: int = 0
    wal: int = 0
    stored_whole: int = 0
    stored_refused: int = 0

    @property
    def accepted(self) -> int:
        return max(1, sum(self.report.outcomes.values()) - self.report.outcomes.get(REFUSED, 0))


@dataclass(frozen=True)
class Row:
    title: str
    of: Callable[[Run], float]
    form: str = ".0f"
    has_ratio: bool = False
    is_ours: bool = False
    """Whether only our server has this figure."""

    def text(self, ours: Run, theirs: Run) -> str:
        mine, other = self.of(ours), self.of(theirs)
        columns = f"{mine:{COLUMN}{self.form}}" + ("" if self.is_ours else f"{other:{COLUMN}{self.form}}")
        return f"{self.title:40}{columns}" + (f"{other / mine:8.2f}" if self.has_ratio and mine else "")


ROWS = [
    Row("whole answers", lambda run: run.report.outcomes.get(WHOLE, 0)),
    Row("refused before anything was stored", lambda run: run.report.outcomes.get(REFUSED, 0)),
    Row("failed", lambda run: run.report.failed),
    Row("first word p50, s", lambda run: percentile(run.report.first_words, 0.5), ".2f", has_ratio=True),
    Row("first word p95, s", lambda run: percentile(run.report.first_words, 0.95), ".2f", has_ratio=True),
    Row("cheap GET p99, ms", lambda run: 1000 * percentile(run.report.polls, 0.99), ".0f", has_ratio=True),
    Row("memory of an open stream, KiB", lambda run: run.report.kilobytes_per_stream, has_ratio=True),
    Row("processor seconds of the server", lambda run: run.processor_seconds, ".1f", has_ratio=True),
    Row("transactions for each turn", lambda run: run.commits / run.accepted, ".1f", is_ours=True),
    Row("WAL bytes for each turn", lambda run: run.wal / run.accepted, is_ours=True),
    Row("whole answers in the database", lambda run: run.stored_whole, is_ours=True),
    Row("refused, but in the database", lambda run: run.stored_refused, is_ours=True),
    Row("open streams at most", lambda run: run.report.open_streams),
    Row("clients: event loop late p99, ms", lambda run: 1000 * percentile(run.report.late, 0.99)),
    Row("clients: processor seconds", lambda run: run.report.processor_seconds, ".1f"),
]


async def measure(database: URL, directory: Path, sizes: Sequence[int], *, begin: float) -> None:
    first_user = 10_000
    for size in sizes:
        print(f"\n{size} answers of {WORDS} words, {WORDS_PER_SECOND} words a second, {begin:g} begun in a second")
        runs: dict[str, Run] = {}
        for name in NAMES:
            runs[name] = await _run(name, database, directory, Load(size, begin, first_user))
            first_user += size
        ours, theirs = (runs[name] for name in NAMES)
        print(f"{'':40}" + "".join(f"{name:>{COLUMN}}" for name in NAMES) + f"{'ratio':>8}")
        for row in ROWS:
            print(row.text(ours, theirs))
        for name, run in runs.items():
            for outcome, count in sorted(run.report.outcomes.items()):
                if outcome not in (WHOLE, REFUSED):
                    print(f"failed on {name}: {count} ({outcome})")


@dataclass(frozen=True)
class Load:
    answers: int
    begin: float
    first_user: int

    def order(self, side: Side) -> Order:
        delay = 1 / WORDS_PER_SECOND
        route = CHEAP_ROUTES[side.name]
        return Order(side.port, side.pid, route, self.answers, self.begin, WORDS, delay, self.first_user)


async def _run(name: str, database: URL, directory: Path, load: Load) -> Run:
    # The server under load inherits the usual limit of open files; the model shall not be what fails.
    with most_descriptors():
        model = ModelServer()
    try:
        async with running(name, database, model, directory) as side:
            if name == OURS:
                # The first change of a page after a checkpoint logs the whole page: none shall begin during the load.
                async with connection_to(database) as connection:
                    await connection.execute("CHECKPOINT")
            await side.warm_up()
            if name == OURS:
                await asyncio.sleep(COUNTERS_SECONDS)
            before = await Counters.read(database)
            used = side.processor_seconds()
            report = await ordered(load.order(side))
            used = side.processor_seconds() - used
        if name == SAMPLE:
            return Run(report, used)
        # The server has ended, and with it PostgreSQL's processes for its connections, which publish their counters.
        await asyncio.sleep(1)
        after = await Counters.read(database)
        whole, refused = await _stored(database, load, report.refused_users)
        return Run(report, used, after.commits - before.commits, after.wal - before.wal, whole, refused)
    finally:
        model.close()


async def _stored(database: URL, load: Load, refused_users: Sequence[str]) -> tuple[int, int]:
    """The number of whole answers of this run, and of threads of users whose request was refused."""
    text = " ".join(f"w{number}" for number in range(WORDS))
    users = [f"user-{load.first_user + number}" for number in range(load.answers)]
    whole = """
SELECT count(*) FROM chat_messages
 WHERE user_id = ANY($1::text[]) AND item_type = 'assistant_message' AND NOT is_partial AND rtrim(content) = $2"""
    refused = "SELECT count(*) FROM chat_sessions WHERE user_id = ANY($1::text[])"
    async with connection_to(database) as connection:
        return await connection.fetchval(whole, users, text), await connection.fetchval(refused, refused_users)
