"""Starts the servers that benchmarks measure or compare: ours, and one as OpenAI's samples build it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.support.processes import ModelServer, clean_environment, free_port, message

SECRET = "b" * 48
OURS, SAMPLE = NAMES = ("this server", "the sample")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@dataclass
class Side:
    """A running server, and a client that acts as any number of users."""

    name: str
    pid: int
    port: int
    client: httpx2.AsyncClient

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        return resident_bytes(self.pid)

    async def say(self, user: int, words: str, thread_id: str | None = None) -> tuple[str, float, int]:
        """The id of the thread, the seconds to the first word, and the number of received words."""
        params: dict[str, Any] = {"input": message(words)} | ({"thread_id": thread_id} if thread_id else {})
        operation = "threads.add_user_message" if thread_id else "threads.create"
        started, first, words_seen = time.perf_counter(), 0.0, 0
        body = {"type": operation, "params": params}
        async with self.client.stream("POST", "/api/chatkit", json=body, headers=signed_in(user)) as response:
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

    async def call(self, user: int, operation: str, **params: Any) -> dict[str, Any]:
        """The response of an operation that does not stream."""
        body = {"type": operation, "params": params}
        response = await self.client.post("/api/chatkit", json=body, headers=signed_in(user))
        if response.status_code != 200:
            raise RuntimeError(f"{self.name} did not answer: {response.status_code} {response.text}")
        found: dict[str, Any] = response.json()
        return found

    async def warm_up(self) -> None:
        """Modules are imported and code is compiled at the first request."""
        await several_at_once(8, lambda number: self.say(number, script(3)))


def signed_in(user: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint(SECRET, f'user-{user}', seconds=3600)}"}


def script(words: int, delay: float = 0.0) -> str:
    return "SCRIPT " + json.dumps({"words": words, "delay": delay})


@asynccontextmanager
async def running(
    name: str,
    database: URL,
    model: ModelServer,
    directory: Path,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Side]:
    port = free_port()
    own = {
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "none",
        "DATABASE_URL": database.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "CHAT_ASSISTANT": "benchmarks.assistant:build",
        "CHAT_REQUESTS_PER_MINUTE": "1000000",
        "CHAT_DATA_DIR": str(directory / "data"),
        "CHAT_LOG_LEVEL": "WARNING",
        **(settings or {}),
    }
    commands = {
        OURS: ["-m", "chatkit_postgres", "serve", "--port", str(port)],
        SAMPLE: ["-m", "benchmarks.sample_server", str(port)],
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
            yield Side(name, process.pid, port, client)
    finally:
        process.terminate()
        await process.wait()


async def several_at_once(count: int, act: Callable[[int], Awaitable[object]], at_once: int = 8) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await act(number)

    await asyncio.gather(*(work() for _ in range(at_once)))
