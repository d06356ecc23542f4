"""What pages that follow running turns cost a process that runs none of them.

One process answers, and raw sockets follow its turns through another one: while the models speak four words a second,
and while they are silent.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.sides import OURS, Side, running, signed_in
from tests.support.processes import ModelServer, message

TURNS = 50
WORDS_PER_SECOND = 4
SETTLING_SECONDS = 3
READ_BYTES = 65536


class Following:
    """The connections of the followers."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._tasks: list[asyncio.Task[None]] = []
        self.events = 0

    async def open(self, threads: Sequence[tuple[int, str]], each: int) -> None:
        """``threads``: user and thread id of each turn."""
        for user, thread_id in threads:
            self._tasks += [asyncio.create_task(self._follow(user, thread_id)) for _ in range(each)]
            await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLING_SECONDS)

    async def close(self) -> None:
        if any(task.done() for task in self._tasks):
            raise RuntimeError("a follower was not served to the end")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, user: int, thread_id: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._side.port)
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed_in(user).items())
        writer.write(f"GET /api/threads/{thread_id}/live HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        try:
            while data := await reader.read(READ_BYTES):
                self.events += data.count(b"data: ")
        finally:
            writer.close()


@dataclass(frozen=True)
class Bench:
    answering: Side
    followed: Side
    followers: int
    seconds: float

    async def measure(self, title: str, delay: float) -> None:
        """``delay``: seconds between two words."""
        threads: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        turns = [asyncio.create_task(_answer(self.answering, user, delay, threads)) for user in range(TURNS)]
        following, before = Following(self.followed), self.followed.memory()
        await following.open([await threads.get() for _ in turns], self.followers // TURNS)
        grown = (self.followed.memory() - before) / 1024 / self.followers
        spent, events = self.followed.processor_seconds(), following.events
        await asyncio.sleep(self.seconds)
        cores = (self.followed.processor_seconds() - spent) / self.seconds
        rate = (following.events - events) / self.seconds
        print(f"{title:10}{cores:8.3f} cores{rate:8.0f} events/s{grown:8.0f} KiB each")
        await following.close()
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)


async def measure(database: URL, directory: Path, followers: int, *, seconds: float) -> None:
    model = ModelServer()
    print(f"{followers} followers of {TURNS} turns")
    try:
        async with (
            running(OURS, database, model, directory / "answering") as answering,
            running(OURS, database, model, directory / "followed") as followed,
        ):
            await answering.warm_up()
            await followed.warm_up()
            bench = Bench(answering, followed, followers, seconds)
            await bench.measure("speaking", 1 / WORDS_PER_SECOND)
            await bench.measure("silent", 600.0)
    finally:
        model.close()


async def _answer(side: Side, user: int, delay: float, threads: asyncio.Queue[tuple[int, str]]) -> None:
    text = "SCRIPT " + json.dumps({"words": 2000, "delay": delay})
    body = {"type": "threads.create", "params": {"input": message(text)}}
    async with side.client.stream("POST", "/api/chatkit", json=body, headers=signed_in(user)) as response:
        async for line in response.aiter_lines():
            if '"thread.created"' in line:
                threads.put_nowait((user, json.loads(line[6:])["thread"]["id"]))
