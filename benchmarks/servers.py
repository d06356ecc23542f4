"""Compares our server with one as OpenAI's samples build it, in turn, on the same scripted model.

The figures are the processor time of the server's process, as Linux reports it, for a number of tokens or turns. The
database, the model and the clients run in other processes and are not counted; the sample has no database.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.sides import NAMES, Side, running, script, several_at_once
from tests.support.processes import ModelServer


async def tokens_per_cpu_second(side: Side, scale: float) -> float:
    """Tokens per processor second: many long answers at once, at fifty words a second."""
    streams, words = max(4, round(40 * scale)), 200
    before = side.processor_seconds()
    await asyncio.gather(*(side.say(user, script(words, 0.02)) for user in range(streams)))
    return streams * words / (side.processor_seconds() - before)


async def turns_per_cpu_second(side: Side, scale: float) -> float:
    """Turns per processor second: answers of one word, each in a new thread."""
    turns = max(20, round(200 * scale))
    before = side.processor_seconds()
    await several_at_once(turns, lambda number: side.say(number, script(1)))
    return turns / (side.processor_seconds() - before)


async def long_turns_per_cpu_second(side: Side, scale: float) -> float:
    """Turns per processor second, in threads of twenty items."""
    threads = max(2, round(8 * scale))
    ids = []
    for number in range(threads):
        thread_id, _, _ = await side.say(number, script(1))
        for _ in range(9):
            await side.say(number, script(1), thread_id)
        ids.append(thread_id)
    before, turns = side.processor_seconds(), 0
    for _ in range(5):
        await asyncio.gather(*(side.say(number, script(1), thread_id) for number, thread_id in enumerate(ids)))
        turns += threads
    return turns / (side.processor_seconds() - before)


async def first_word(side: Side, scale: float) -> float:
    """Time to the first word in milliseconds, on an idle server."""
    times = [(await side.say(number, script(1)))[1] for number in range(max(5, round(30 * scale)))]
    return 1000 * statistics.median(times)


async def first_word_under_load(side: Side, scale: float) -> float:
    """Time to the first word during 150 streams at fifty words a second."""
    streams = max(10, round(150 * scale))
    # Not for longer: the sample does not sustain so many for a minute.
    load = [asyncio.create_task(side.say(user, script(400, 0.02))) for user in range(streams)]
    await asyncio.sleep(3)
    times = [(await side.say(1000 + number, script(1)))[1] for number in range(5)]
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return 1000 * statistics.median(times)


async def kilobytes_per_stream(side: Side, scale: float) -> float:
    """Memory by which the process grows for each silent stream."""
    streams = max(10, round(150 * scale))
    before = side.memory()
    load = [asyncio.create_task(side.say(user, script(2, 30))) for user in range(streams)]
    await asyncio.sleep(4)
    grown = side.memory() - before
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return max(grown, 2**16) / 1024 / streams


@dataclass(frozen=True)
class Measure:
    title: str
    of: Callable[[Side, float], Awaitable[float]]
    tools: int = 0
    is_less_better: bool = False
    is_fresh: bool = False
    """Whether the figure needs a new process, because released memory is reused."""

    def ratio(self, ours: float, theirs: float) -> float:
        """The factor by which our figure is better."""
        return theirs / ours if self.is_less_better else ours / theirs


MEASURES = [
    Measure("tokens per CPU second", tokens_per_cpu_second),
    Measure("bare turns per CPU second", turns_per_cpu_second),
    Measure("turns with 10 tools and 20 items", long_turns_per_cpu_second, tools=10),
    Measure("first word when idle, ms", first_word, is_less_better=True),
    Measure("first word beside 150 streams, ms", first_word_under_load, is_less_better=True),
    Measure("memory of an open stream, KiB", kilobytes_per_stream, is_less_better=True, is_fresh=True),
]


async def measure(database: URL, directory: Path, measures: Sequence[Measure], *, rounds: int, scale: float) -> None:
    """Print the median of each side, and the factor by which ours is better: the median of the ratios of figures that
    were measured in direct succession."""
    model = ModelServer()
    try:
        print(f"{'':38}{NAMES[0]:>14}{NAMES[1]:>14}{'ratio':>8}")
        for what in measures:
            pairs: list[tuple[float, float]] = []
            while len(pairs) < rounds:
                async with AsyncExitStack() as stack:
                    sides = [
                        await stack.enter_async_context(
                            running(name, database, model, directory, {"BENCH_TOOLS": str(what.tools)})
                        )
                        for name in NAMES
                    ]
                    for side in sides:
                        await side.warm_up()
                    while len(pairs) < rounds:
                        pairs.append(await _pair(what, sides, scale, is_turned=len(pairs) % 2 == 1))
                        if what.is_fresh:
                            break
            ours, theirs = (statistics.median(figures) for figures in zip(*pairs, strict=True))
            ratio = statistics.median(what.ratio(one, other) for one, other in pairs)
            print(f"{what.title:38}{ours:14.1f}{theirs:14.1f}{ratio:8.2f}")
    finally:
        model.close()


async def _pair(what: Measure, sides: Sequence[Side], scale: float, *, is_turned: bool) -> tuple[float, float]:
    """Measure both sides. The machine's speed varies, so the order alternates."""
    found = {side.name: await what.of(side, scale) for side in (reversed(sides) if is_turned else sides)}
    ours, theirs = (found[name] for name in NAMES)
    return ours, theirs
