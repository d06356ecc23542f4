"""Measures the bytes of write-ahead log for each byte of a long answer's text, while it is written and checkpointed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from benchmarks.clients import Order, ordered
from benchmarks.counters import connection_to, wal_bytes
from benchmarks.exchange import WHOLE
from benchmarks.sides import OURS, Side, running
from tests.support.processes import ModelServer

ANSWERS = 20
WORDS_PER_SECOND = 50


async def measure(database: URL, directory: Path, lengths: Sequence[int]) -> None:
    print(f"{ANSWERS} answers at once, {WORDS_PER_SECOND} words a second each")
    print(f"{'words':>8}{'bytes of text':>16}{'bytes of WAL':>16}{'WAL for a byte':>16}")
    model = ModelServer()
    figures: list[float] = []
    try:
        async with running(OURS, database, model, directory) as side, connection_to(database) as connection:
            await side.warm_up()
            # The first change of a page after a checkpoint logs the whole page. Short answers pay for most pages, and
            # no checkpoint begins for five minutes, so the figures are those of what the server writes.
            await connection.execute("CHECKPOINT")
            await _grown(side, connection, 50, first_user=1000)
            for number, words in enumerate(lengths, start=2):
                text = ANSWERS * sum(len(f"w{place} ") for place in range(words))
                grown = await _grown(side, connection, words, first_user=1000 * number)
                figures.append(grown / text)
                print(f"{words:8}{text:16}{grown:16}{figures[-1]:16.2f}")
        print(f"ratio of {lengths[-1]} words to {lengths[0]}: {figures[-1] / figures[0]:.2f}")
    finally:
        model.close()


async def _grown(side: Side, connection: asyncpg.Connection, words: int, *, first_user: int) -> int:
    """The bytes by which the write-ahead log grows while the answers are written."""
    before = await wal_bytes(connection)
    delay = 1 / WORDS_PER_SECOND
    report = await ordered(Order(side.port, side.pid, "/health/live", ANSWERS, 1000, words, delay, first_user))
    if report.outcomes != {WHOLE: ANSWERS}:
        raise RuntimeError(f"Not all answers were whole: {report.outcomes}")
    # A statement of an ended turn may still be under way.
    await asyncio.sleep(1)
    return await wal_bytes(connection) - before
