"""Three users whose every string carries their mark do everything there is, at once, in random order, also with each
other's ids. No mark may reach another user, another user's rows, or a line of the log."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.assistant.approvals import APPROVAL_ACTION
from chatkit_postgres.store.ids import APPROVAL_PREFIX
from tests.conftest import query
from tests.faults.harness import SECRET, environment
from tests.isolation.matrix import TABLES
from tests.support.forge import Hmac, claims, token
from tests.support.processes import ChatProcess, ModelServer, eventually, parse_events

AT_ONCE = 12
HIDDEN = "HIDDEN"


@dataclass
class Canary:
    """A user, and what they have seen of their own."""

    user: str
    mark: str
    threads: list[str] = field(default_factory=list)
    items: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    seen: int = 0

    @property
    def headers(self) -> dict[str, str]:
        body = claims(sub=self.user, name=self.mark, exp=4_000_000_000)
        return {"Authorization": f"Bearer {token(Hmac(SECRET.encode()), body=body)}", "Accept-Language": "de"}

    def message(self, dice: random.Random, files: list[str]) -> dict[str, Any]:
        words = f"{self.mark} " * dice.randint(1, 4) + "x" * dice.randint(0, 9) + dice.choice(["", "", " fail"])
        tag = {"type": "input_tag", "id": self.mark, "text": self.mark, "data": {self.mark: self.mark}}
        content: list[dict[str, Any]] = [{"type": "input_text", "text": words}]
        return {
            "content": content + ([tag] if dice.random() < 0.3 else []),
            "attachments": [dice.choice(files)] if files and dice.random() < 0.2 else [],
            "quoted_text": self.mark if dice.random() < 0.3 else None,
            "inference_options": {},
        }

    def noticed(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["type"] == "thread.created":
                self.threads.append(event["thread"]["id"])
            elif event["type"] == "thread.item.done":
                self.items.append((event["item"]["thread_id"], event["item"]["id"]))


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    settings = {"CHAT_ASSISTANT": "tests.support.assistants:EchoThatAsks", "CHAT_USER_CLAIMS": "name"}
    settings |= {"CHAT_LOG_LEVEL": "DEBUG", "CHAT_MAX_UNSENT_ATTACHMENTS": "100000"}
    process = ChatProcess(
        tmp_path_factory.mktemp("canary"),
        **environment(shared_database, model_server)
        | settings
        | {"CHAT_LOG_LEVEL": "DEBUG", "CHAT_MAX_UNSENT_ATTACHMENTS": "100000"},
    )
    yield process.wait_until_ready()
    process.stop()


class Flock:
    def __init__(self, client: httpx2.AsyncClient, seed: int) -> None:
        self.client = client
        self.dice = random.Random(seed)
        self.birds = [Canary(f"user-{name}", f"CANARY{name}{seed:08x}") for name in ("a", "b", "c")]
        self.outcomes: Counter[str] = Counter()
        self.leaks: list[str] = []

    async def fly(self, requests: int) -> None:
        left = iter(range(requests))

        async def one_after_another() -> None:
            for _ in left:
                await self.step()

        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))

    async def step(self) -> None:
        bird = self.dice.choice(self.birds)
        # Now and then with an id of somebody else.
        target = bird if self.dice.random() < 0.8 else self.dice.choice(self.birds)
        thread = self.dice.choice(target.threads[-50:]) if target.threads else "thr_none"
        files = target.files[-5:]
        of_thread, item = self.dice.choice(target.items[-50:]) if target.items else ("thr_none", "msg_none")
        bodies: list[Callable[[], tuple[str, dict[str, Any]]]] = [
            lambda: ("threads.create", {"input": bird.message(self.dice, files)}),
            lambda: ("threads.add_user_message", {"thread_id": thread, "input": bird.message(self.dice, files)}),
            lambda: ("threads.retry_after_item", {"thread_id": of_thread, "item_id": item}),
            lambda: ("threads.add_client_tool_output", {"thread_id": thread, "result": {bird.mark: bird.mark}}),
            lambda: (
                "threads.add_structured_input",
                {"thread_id": of_thread, "item_id": item, "input": {"answers": {"why": {"values": [bird.mark]}}}},
            ),
            lambda: (
                "threads.custom_action",
                {"thread_id": of_thread, "item_id": item, "action": {"type": bird.mark, "payload": bird.mark}},
            ),
            lambda: ("answer", self._answer(target)),
            lambda: ("waiting", {}),
            lambda: ("items.feedback", {"thread_id": of_thread, "item_ids": [item], "kind": "positive"}),
            lambda: ("threads.update", {"thread_id": thread, "title": f"{bird.mark} {self.dice.random()}"}),
            lambda: ("threads.list", {"limit": 5, "after": self.dice.choice([None, thread])}),
            lambda: ("items.list", {"thread_id": thread, "limit": 20}),
            lambda: ("items.list", {"thread_id": of_thread, "limit": 3, "after": item}),
            lambda: ("threads.get_by_id", {"thread_id": thread}),
            lambda: ("threads.delete", {"thread_id": thread}),
            lambda: ("attachments.delete", {"attachment_id": self.dice.choice(files or ["atc_none"])}),
            lambda: ("upload", {}),
            lambda: ("read a file", {"attachment_id": self.dice.choice(files or ["atc_none"])}),
            lambda: ("live", {"thread_id": thread}),
            lambda: ("stop", {"thread_id": thread}),
            # What is refused must not be logged either.
            lambda: ("threads.create", {"input": bird.mark, "other": [bird.mark]}),
            lambda: (bird.mark, {bird.mark: bird.mark}),
        ]
        weights = [4, 9, 3, 4, 4, 1, 4, 1, 3, 3, 6, 6, 4, 4, 1, 1, 2, 2, 6, 1, 1, 1]
        operation, params = self.dice.choices(bodies, weights)[0]()
        if operation == "upload":
            await self._upload(bird)
        elif operation == "read a file":
            await self._read_file(bird, params["attachment_id"])
        elif operation in {"live", "stop"}:
            await self._join(bird, operation, params["thread_id"])
        elif operation == "waiting":
            await self._join(bird, operation, "")
        elif operation == "answer":
            await self._ask(bird, "threads.custom_action", params)
        else:
            await self._ask(bird, operation, params)

    def _answer(self, target: Canary) -> dict[str, Any]:
        """Of one of the newest questions."""
        asked = [place for place in target.items[-200:] if place[1].startswith(APPROVAL_PREFIX)]
        thread_id, item_id = self.dice.choice(asked[-5:]) if asked else ("thr_none", "apr_none")
        action = {"type": APPROVAL_ACTION, "payload": {"approve": self.dice.random() < 0.7}}
        return {"thread_id": thread_id, "item_id": item_id, "action": action}

    async def _upload(self, bird: Canary) -> None:
        content = f"{bird.mark} {self.dice.random()}".encode()
        form = {"file": (f"{bird.mark}.txt", content, self.dice.choice(["text/plain", "text/markdown", "image/png"]))}
        answer = await self.client.post("/api/attachments", files=form, headers=bird.headers)
        self.outcomes[f"upload {answer.status_code}"] += 1
        self._look(bird, "upload", answer.text)
        if answer.status_code == 200:
            bird.files.append(answer.json()["id"])

    async def _read_file(self, bird: Canary, attachment_id: str) -> None:
        described = await self.client.get(f"/api/attachments/{attachment_id}", headers=bird.headers)
        self.outcomes[f"read a file {described.status_code}"] += 1
        self._look(bird, "read a file", described.text)
        if described.status_code == 200:
            content = await self.client.get(described.json()["download_url"])
            self._look(bird, "download", content.text)

    async def _join(self, bird: Canary, name: str, thread_id: str) -> None:
        url, method = f"/api/threads/{thread_id}/{name}", "POST" if name == "stop" else "GET"
        url = url.replace("//", "/")
        answer = await self.client.request(method, url, headers=bird.headers)
        self.outcomes[f"{name} {answer.status_code}"] += 1
        self._look(bird, name, answer.text)

    async def _ask(self, bird: Canary, operation: str, params: dict[str, Any]) -> None:
        headers = bird.headers | {"Content-Type": "application/json"}
        if self.dice.random() < 0.1:
            headers["Idempotency-Key"] = f"{bird.mark}-{self.dice.randint(1, 30)}"
        if self.dice.random() < 0.3:
            headers["Chat-On-Disconnect"] = self.dice.choice(["finish", "stop"])
        body = {"type": operation, "params": params, "metadata": {"userInfo": bird.mark}}
        leaves_after = self.dice.uniform(0, 0.03) if self.dice.random() < 0.15 else None
        received = bytearray()
        outcome = "left"
        with suppress(TimeoutError):
            async with asyncio.timeout(leaves_after):
                outcome = await self._read(body, headers, received)
        self.outcomes[f"{operation if operation[0] != 'C' else 'nonsense'} {outcome}"] += 1
        self._look(bird, operation, received.decode(errors="replace"))

    async def _read(self, body: dict[str, Any], headers: dict[str, str], received: bytearray) -> str:
        url = f"/api/chatkit?secret={headers['Authorization'][-10:]}"
        async with self.client.stream("POST", url, content=json.dumps(body).encode(), headers=headers) as response:
            async for chunk in response.aiter_raw():
                received += chunk
            return str(response.status_code)

    def _look(self, bird: Canary, operation: str, text: str) -> None:
        bird.seen += bird.mark in text
        for other in self.birds:
            if other is not bird and other.mark in text:
                self.leaks.append(f"{operation}: {bird.user} reads of {other.user}: {text[:300]}")
        if HIDDEN in text:
            self.leaks.append(f"{operation}: hidden context reaches {bird.user}: {text[:300]}")
        with suppress(json.JSONDecodeError, KeyError):
            bird.noticed(parse_events(text))


async def flown(server: ChatProcess, seed: int, requests: int) -> Flock:
    limits = httpx2.Limits(max_connections=AT_ONCE * 2)
    async with httpx2.AsyncClient(base_url=server.base_url, timeout=30, limits=limits) as client:
        flock = Flock(client, seed)
        await flock.fly(requests)
    return flock


MANY = 5000
"""Requests of which some meet what is rare."""


# CI makes tens of thousands of requests beside other work.
@pytest.mark.timeout(600)
def test_no_mark_reaches_anybody_else(
    server: ChatProcess, shared_database: URL, request: pytest.FixtureRequest
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown with a failure
    requests = request.config.getoption("--canary-requests")
    flock = asyncio.run(flown(server, seed, requests))
    print(sorted(flock.outcomes.items()))  # noqa: T201 - how it went
    assert flock.leaks == []
    assert sum(flock.outcomes.values()) == requests
    server_errors = {name: count for name, count in flock.outcomes.items() if name[-3:] in {"500", "502", "503"}}
    assert server_errors == {}
    # The eyes are open: everybody saw a lot of their own, and was refused what is not theirs.
    assert min(bird.seen for bird in flock.birds) > requests / 20
    assert flock.outcomes["items.list 404"] > requests / 200
    assert flock.outcomes["read a file 200"] > requests / 500
    assert flock.outcomes["read a file 404"] > 0
    if requests >= MANY:
        assert min(flock.outcomes["waiting 200"], flock.outcomes["threads.custom_action 200"]) > requests / 500
        assert min(flock.outcomes[name] for name in ("live 200", "live 204", "live 404", "stop 200", "stop 404")) > 0
    eventually(lambda: query(shared_database, "SELECT 1 FROM chat_turns WHERE state = 'running'") == [], 30)
    for bird in flock.birds:
        for other in flock.birds:
            for table in TABLES:
                theirs = f"SELECT r::text FROM chat_{table} r WHERE user_id = '{bird.user}'"
                if other is not bird:
                    found = query(shared_database, f"{theirs} AND r::text LIKE '%{other.mark}%'")
                    assert found == [], f"{other.mark} in chat_{table} of {bird.user}"
    log = server.log
    assert log.count('"event": "request"') >= requests * 0.8
    for secret in (*(bird.mark for bird in flock.birds), "eyJ", "secret=", HIDDEN):
        lines = [line for line in log.splitlines() if secret in line]
        assert lines == [], f"{secret!r} is in the log"


def test_every_request_is_one_line_with_who_what_and_how_it_ended(server: ChatProcess) -> None:
    """Request id, user, operation, thread, time, outcome."""
    bird = Canary("user-log", "CANARYlog")

    async def ask() -> None:
        async with httpx2.AsyncClient(base_url=server.base_url, timeout=30) as client:
            body = {"type": "threads.get_by_id", "params": {"thread_id": "thr_of_nobody"}}
            headers = bird.headers | {"X-Request-ID": "the-one"}
            await client.post("/api/chatkit", json=body, headers=headers)

    asyncio.run(ask())
    eventually(lambda: "the-one" in server.log)
    (line,) = [json.loads(line) for line in server.log.splitlines() if "the-one" in line]
    assert line["event"] == "request"
    assert (line["user_id"], line["operation"], line["thread_id"]) == ("user-log", "threads.get_by_id", "thr_of_nobody")
    assert (line["status"], line["method"], line["path"]) == (404, "POST", "/api/chatkit")
    assert line["milliseconds"] > 0
    assert "timestamp" in line
