"""The clients of a server under load, in a process of their own: ``python -m benchmarks.clients ORDER``.

They begin answers at fixed times, whatever the server does, and poll a cheap route of the server ten times a second.
They measure how late their own event loop is, so that slow clients are not taken for a slow server.
"""

import asyncio
import json
import math
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import uvloop

from benchmarks.exchange import REFUSED, WHOLE, Exchange, judged, request
from benchmarks.sides import resident_bytes, script, signed_in
from tests.support.processes import clean_environment, message

POLLS_PER_SECOND = 10
PATIENCE = 120
"""How many seconds longer than the model an answer may take."""


@dataclass(frozen=True)
class Order:
    """What the clients shall do."""

    port: int
    pid: int
    route: str
    """The cheap route."""
    answers: int
    begin: float
    """How many answers are begun in a second."""
    words: int
    delay: float
    """Seconds between two words."""
    first_user: int


@dataclass
class Report:
    outcomes: dict[str, int] = field(default_factory=dict)
    refused_users: list[str] = field(default_factory=list)
    first_words: list[float] = field(default_factory=list)
    """Seconds from the beginning of the connection, of the answers that had a first word."""
    polls: list[float] = field(default_factory=list)
    """Seconds; infinite if the server did not respond."""
    open_streams: int = 0
    """The largest number of answers that were open at once."""
    grown: int = 0
    """Bytes by which the server's process had grown at that moment."""
    late: list[float] = field(default_factory=list)
    """Seconds by which the clients' own event loop was late."""
    processor_seconds: float = 0.0
    """Of the clients."""

    @property
    def failed(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome not in (WHOLE, REFUSED))

    @property
    def kilobytes_per_stream(self) -> float:
        return self.grown / 1024 / max(1, self.open_streams)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


@contextmanager
def most_descriptors() -> Iterator[None]:
    """Processes that are started in this context may open as many files as the system lets them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ordered(order: Order) -> Report:
    """The report of clients in a new process."""
    with most_descriptors():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.clients", json.dumps(asdict(order))),
            env=clean_environment(),
            stdout=asyncio.subprocess.PIPE,
        )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("The clients failed.")
    return Report(**json.loads(output))


class Clients:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.report = Report()
        self._open = 0
        self._outcomes: Counter[str] = Counter()

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        requests = [self._request(number) for number in range(self.order.answers)]
        size, used = resident_bytes(self.order.pid), time.process_time()
        watching = [loop.create_task(work) for work in (self._poll(), self._watch_memory(size), self._watch_loop())]
        started, answers = loop.time(), []
        for number, body in enumerate(requests):
            await asyncio.sleep(started + number / self.order.begin - loop.time())
            answers.append(loop.create_task(self._answer(number, body)))
        await asyncio.gather(*answers)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self.report.outcomes = dict(self._outcomes)
        self.report.processor_seconds = time.process_time() - used
        return self.report

    def _request(self, number: int) -> bytes:
        params = {"input": message(script(self.order.words, self.order.delay))}
        headers = {"Content-Type": "application/json"} | signed_in(self.order.first_user + number)
        body = json.dumps({"type": "threads.create", "params": params}).encode()
        return request("POST", "/api/chatkit", headers, body)

    async def _answer(self, number: int, body: bytes) -> None:
        exchange = Exchange(body, b'"delta":"w')
        self._open += 1
        await exchange.run(self.order.port, self.order.words * self.order.delay + PATIENCE)
        self._open -= 1
        outcome = judged(bytes(exchange.received), self.order.words)
        self._outcomes[outcome] += 1
        if outcome == REFUSED:
            self.report.refused_users.append(f"user-{self.order.first_user + number}")
        if exchange.seconds is not None:
            self.report.first_words.append(exchange.seconds)

    async def _poll(self) -> None:
        polls: set[asyncio.Task[None]] = set()
        try:
            async for _ in _ticks(1 / POLLS_PER_SECOND):
                polls.add(asyncio.create_task(self._poll_once()))
        finally:
            # Those that still wait when the last answer has ended are part of the figure.
            await asyncio.gather(*polls)

    async def _poll_once(self) -> None:
        exchange = Exchange(request("GET", self.order.route, {}), b"HTTP/1.1 200")
        await exchange.run(self.order.port, PATIENCE)
        self.report.polls.append(math.inf if exchange.seconds is None else exchange.seconds)

    async def _watch_memory(self, size: int) -> None:
        async for _ in _ticks(0.1):
            if self._open >= self.report.open_streams:
                self.report.open_streams = self._open
                self.report.grown = resident_bytes(self.order.pid) - size

    async def _watch_loop(self) -> None:
        async for late in _ticks(0.02):
            self.report.late.append(late)


async def _ticks(seconds: float) -> AsyncIterator[float]:
    """Yields at fixed times, for ever, by how many seconds it is late."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += seconds
        await asyncio.sleep(due - loop.time())
        yield loop.time() - due


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done = runner.run(Clients(Order(**json.loads(sys.argv[1]))).run())
    # A pipe takes the first 64 KiB of a long report. Without a buffer, print would drop the rest.
    os.set_blocking(sys.stdout.fileno(), True)
    with open(sys.stdout.fileno(), "w", closefd=False) as out:
        out.write(json.dumps(asdict(done)))
