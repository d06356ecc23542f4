"""Compares our server with one as OpenAI's samples build it, in turn, on the same scripted model.

The figures are the processor time of the server's process, as Linux reports it, for a number of tokens or turns. The
database, the model and the clients run in other processes and are not counted; the sample has no database.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.support.processes import ModelServer, clean_environment, free_port, message

SECRET = "b" * 48
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Side:
    """A running server, and a client that acts as any number of users."""

    name: str
    pid: int
    client: httpx2.AsyncClient

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    async def say(self, user: int, words: str, thread_id: str | None = None) -> tuple[str, float, int]:
        """The id of the thread, the seconds to the first word, and the number of received words."""
        params: dict[str, Any] = {"input": message(words)} | ({"thread_id": thread_id} if thread_id else {})
        operation = "threads.add_user_message" if thread_id else "threads.create"
        headers = {"Authorization": f"Bearer {mint(SECRET, f'user-{user}', seconds=3600)}"}
        started, first, words_seen = time.perf_counter(), 0.0, 0
        body = {"type": operation, "params": params}
        async with self.client.stream("POST", "/api/chatkit", json=body, headers=headers) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if '"delta":"' in line:
                    first = first or time.perf_counter() - started
                    words_seen += line.count("w") if '"delta":"w' in line else 1
                elif thread_id is None and '"thread.created"' in line:
                    thread_id = json.loads(line[6:])["thread"]["id"]
        if thread_id is None or not words_seen:
            raise RuntimeError(f"{self.name} did not answer: {response.status_code}")
        return thread_id, first, words_seen


def script(words: int, delay: float = 0.0) -> str:
    return "SCRIPT " + json.dumps({"words": words, "delay": delay})


@asynccontextmanager
async def running(name: str, database: URL, model: ModelServer, directory: Path, tools: int) -> AsyncIterator[Side]:
    port = free_port()
    own = {
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "none",
        "BENCH_TOOLS": str(tools),
        "DATABASE_URL": database.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "CHAT_ASSISTANT": "benchmarks.assistant:build",
        "CHAT_REQUESTS_PER_MINUTE": "1000000",
        "CHAT_DATA_DIR": str(directory / "data"),
        "CHAT_LOG_LEVEL": "WARNING",
    }
    commands = {
        "this server": ["-m", "chatkit_postgres", "serve", "--port", str(port)],
        "the sample": ["-m", "benchmarks.sample_server", str(port)],
    }
    command = [sys.executable, *commands[name]]
    process = await asyncio.create_subprocess_exec(
        *command, env=clean_environment(**own), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
        base_url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base_url, timeout=120, limits=limits) as client:
            while True:
                try:
                    if (await client.get("/health/ready")).status_code == 200:
                        break
                except httpx2.TransportError:
                    if process.returncode is not None:
                        raise RuntimeError(f"{name} did not start") from None
                await asyncio.sleep(0.1)
            yield Side(name, process.pid, client)
    finally:
        process.terminate()
        await process.wait()


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
    await _several_at_once(turns, lambda number: side.say(number, script(1)))
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
NAMES = ("this server", "the sample")


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
                        await stack.enter_async_context(running(name, database, model, directory, what.tools))
                        for name in NAMES
                    ]
                    for side in sides:
                        # Warm-up: modules are imported and code is compiled at the first request.
                        await _several_at_once(8, lambda number, side=side: side.say(number, script(3)))  # type: ignore[misc]
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


async def _several_at_once(count: int, act: Callable[[int], Awaitable[object]], at_once: int = 8) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await act(number)

    await asyncio.gather(*(work() for _ in range(at_once)))
