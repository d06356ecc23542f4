"""Users who know nothing of versions: they create threads, write, send files and read, at a steady rate."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET
from tests.support.processes import message

USERS, MESSAGES, MAX_RUNNING = 30, 12, 100
FILE = b"a small file"


@dataclass
class Conversation:
    user: str
    thread_id: str = ""
    items: list[str] = field(default_factory=list)
    """The ids of messages of both sides that were acknowledged, in order."""
    written: int = 0
    has_file: bool = False
    is_busy: bool = True


class Balancer:
    """Sends each request to one of the servers that are there."""

    def __init__(self, seed: int = 1) -> None:
        self._targets: dict[str, int] = {}
        """URL to the number of its requests that were not answered yet."""
        self._gone: dict[str, int] = {}
        self._chance = random.Random(seed)

    def add(self, target: str) -> None:
        self._targets[target] = 0

    def remove(self, target: str) -> None:
        """Returns when the server has answered, or begun to answer, what it was sent."""
        self._gone[target] = self._targets.pop(target)
        deadline = time.monotonic() + 60
        while self._gone[target] > 0:
            assert time.monotonic() < deadline, f"{target} does not answer"
            time.sleep(0.01)
        del self._gone[target]

    @contextmanager
    def choose(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """A server, and what to call when it begins to answer."""
        target, is_waiting = self._chance.choice(list(self._targets)), [True]
        self._count(target, 1)

        def answered() -> None:
            if is_waiting:
                is_waiting.clear()
                self._count(target, -1)

        try:
            yield target, answered
        finally:
            answered()

    def _count(self, target: str, change: int) -> None:
        counts = self._targets if target in self._targets else self._gone
        counts[target] += change


class Traffic:
    def __init__(self, *, per_second: int = 20, seed: int = 1) -> None:
        self.balancer = Balancer()
        self.conversations: list[Conversation] = []
        self.failures: list[str] = []
        self.turns = self.files = self.reads = self.left_out = 0
        """``left_out``: turns that did not begin, because so many others ran."""
        self.first_events: list[float] = []
        self._running = 0
        self._per_second = per_second
        self._chance = random.Random(seed)
        self._users = [f"upgrade-{number}" for number in range(USERS)]
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    async def _run(self) -> None:
        async with httpx2.AsyncClient(timeout=30) as self._client, asyncio.TaskGroup() as tasks:
            begin = time.monotonic()
            for number in itertools.count():
                if self._is_over.is_set():
                    return
                await asyncio.sleep(max(0.0, begin + number / self._per_second - time.monotonic()))
                if self._running > MAX_RUNNING:
                    self.left_out += 1
                    continue
                tasks.create_task(self._noted(self._turn()))
                if number % 5 == 0:
                    tasks.create_task(self._noted(self._read()))

    async def _noted(self, work: Any) -> None:
        self._running += 1
        try:
            await work
        except (httpx2.HTTPError, AssertionError) as failure:
            self.failures.append(f"{type(failure).__name__}: {failure}")
        finally:
            self._running -= 1

    async def _turn(self) -> None:
        open_ones = [one for one in self.conversations if not one.is_busy and one.written < MESSAGES]
        is_new = len(open_ones) < USERS // 2 or self._chance.random() < 0.2
        conversation = Conversation(self._chance.choice(self._users)) if is_new else self._chance.choice(open_ones)
        conversation.is_busy = True
        headers = self._headers(conversation)
        given = message(f"Number {next(self._numbers)}")
        if self._chance.random() < 0.1:
            given["attachments"] = [await self._upload(headers)]
            conversation.has_file = True
        params: dict[str, Any] = {"input": given}
        if not is_new:
            params["thread_id"] = conversation.thread_id
        operation = "threads.create" if is_new else "threads.add_user_message"
        events = await self._events(headers, {"type": operation, "params": params})
        done = [event["item"] for event in events if event["type"] == "thread.item.done"]
        said = [item for item in done if item["type"] in {"user_message", "assistant_message"}]
        assert [item["type"] for item in said] == ["user_message", "assistant_message"], f"{operation}: {events}"
        if is_new:
            conversation.thread_id = events[0]["thread"]["id"]
            self.conversations.append(conversation)
        conversation.items += [item["id"] for item in said]
        conversation.written += 1
        answer = said[1]["content"][0]["text"]
        # The model counts the messages of its request. The words of a file are one more.
        wanted = f"message {conversation.written} of yours"
        assert conversation.has_file or wanted in answer, f"not {wanted}: {answer}"
        self.turns += 1
        conversation.is_busy = False

    async def _events(self, headers: dict[str, str], body: dict[str, Any]) -> list[dict[str, Any]]:
        began, events = time.monotonic(), list[dict[str, Any]]()
        with self.balancer.choose() as (target, answered):
            async with self._client.stream("POST", f"{target}/api/chatkit", json=body, headers=headers) as response:
                answered()
                if response.status_code != 200:
                    raise AssertionError(f"{body['type']}: {response.status_code} {(await response.aread()).decode()}")
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        if not events:
                            self.first_events.append(time.monotonic() - began)
                        events.append(json.loads(line.removeprefix("data: ")))
        errors = [event for event in events if event["type"] == "error"]
        assert errors == [], f"{body['type']}: {errors}"
        return events

    async def _upload(self, headers: dict[str, str]) -> str:
        form = {"file": ("note.txt", FILE, "text/plain")}
        with self.balancer.choose() as (target, _):
            response = await self._client.post(f"{target}/api/attachments", files=form, headers=headers)
        assert response.status_code == 200, f"upload: {response.status_code} {response.text}"
        self.files += 1
        return str(response.json()["id"])

    async def _read(self) -> None:
        there = [one for one in self.conversations if not one.is_busy]
        if there:
            conversation = self._chance.choice(there)
            known = list(conversation.items)
            with self.balancer.choose() as (target, _):
                read = await self._messages(target, conversation)
            assert read[: len(known)] == known, "an acknowledged item is missing"
            self.reads += 1

    async def _messages(self, target: str, conversation: Conversation) -> list[str]:
        body = {"type": "items.list", "params": {"thread_id": conversation.thread_id, "order": "asc", "limit": 100}}
        response = await self._client.post(
            f"{target}/api/chatkit", json=body, headers=self._headers(conversation), timeout=30
        )
        assert response.status_code == 200, f"items.list: {response.status_code} {response.text}"
        wanted = {"user_message", "assistant_message"}
        return [item["id"] for item in response.json()["data"] if item["type"] in wanted]

    def lost(self, target: str) -> list[str]:
        """What was acknowledged and is not there, or is in another order, or is there and nobody has written it."""

        async def look() -> list[str]:
            async with httpx2.AsyncClient(timeout=30) as self._client:
                return [
                    f"{conversation.thread_id}: {read} instead of {conversation.items}"
                    for conversation in self.conversations
                    if (read := await self._messages(target, conversation)) != conversation.items
                ]

        return asyncio.run(look())

    def _headers(self, conversation: Conversation) -> dict[str, str]:
        return {"Authorization": f"Bearer {mint(SECRET, conversation.user, seconds=3600)}"}
