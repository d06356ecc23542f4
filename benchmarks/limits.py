"""Measures what limits over all processes, budgets and traces add to the server's processor time, under one load.

The same answers are begun on a server that has none of them, and on others, in turn; the ratio is to the first.
"""

import statistics
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from benchmarks.clients import most_descriptors, ordered
from benchmarks.exchange import WHOLE
from benchmarks.load import WORDS, WORDS_PER_SECOND, Load
from benchmarks.sides import OURS, running
from tests.support.processes import ModelServer

ROUNDS = 3
"""One for each side, so that each is once the last, which finds a fuller database."""
NOTHING = {"CHAT_SHARED_LIMITS": "false"}
LIMITS = {"CHAT_SHARED_LIMITS": "true", "CHAT_TOKENS_PER_DAY": "1000000000"}


async def measure(database: URL, directory: Path, answers: int, *, begin: float) -> None:
    print(f"\n{answers} answers of {WORDS} words, {WORDS_PER_SECOND} words a second, {begin:g} begun in a second")
    first_user, seconds = 10_000, dict[str, list[float]]()
    with collector() as url:
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        sides = {"nothing": NOTHING, "limits and budgets": LIMITS, "and traces": LIMITS | traces}
        for number in range(ROUNDS):
            for name, settings in [*sides.items()][number:] + [*sides.items()][:number]:
                used = await _run(database, directory, Load(answers, begin, first_user), settings)
                seconds.setdefault(name, []).append(used)
                first_user += answers
    base = statistics.median(seconds["nothing"])
    for name in sides:
        found = statistics.median(seconds[name])
        print(f"{name:24}{found:10.1f} processor seconds{found / base:8.2f}")


async def _run(database: URL, directory: Path, load: Load, settings: Mapping[str, str]) -> float:
    with most_descriptors():
        model = ModelServer()
    try:
        async with running(OURS, database, model, directory, settings=settings) as side:
            await side.warm_up()
            used = side.processor_seconds()
            report = await ordered(load.order(side))
            if report.outcomes != {WHOLE: load.answers}:
                raise RuntimeError(f"Not all answers were whole: {report.outcomes}")
            return side.processor_seconds() - used
    finally:
        model.close()


@contextmanager
def collector() -> Iterator[str]:
    """Takes spans and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
