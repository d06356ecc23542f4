"""Every operation of the protocol, with every id in it replaced by every kind of id that is not the caller's.

The rows are generated from the SDK's own union of requests: an operation without an entry in ``OWN`` fails.
"""

import copy
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote

import asyncpg
import httpx2
from chatkit.types import ChatKitReq
from pydantic import BaseModel
from sqlalchemy import URL

from chatkit_postgres.assistant.approvals import APPROVAL_ACTION
from chatkit_postgres.auth.tokens import TokenRules, mint
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.store.ids import APPROVAL_PREFIX, new_approval_id, new_id
from tests.isolation.user_data import UserData
from tests.support.processes import message

SECRET = "i" * 48
RULES = TokenRules(issuer="https://issuer.example")

Params = dict[str, Any]
Path = tuple[str | int, ...]

OWN: dict[str, Callable[[UserData], Params]] = {
    "threads.get_by_id": lambda w: {"thread_id": w.thread},
    "threads.list": lambda w: {"after": w.other_thread, "limit": 5},
    "threads.create": lambda w: {"input": message("Hello") | {"attachments": [w.attachment]}},
    "threads.add_user_message": lambda w: {
        "thread_id": w.thread,
        "input": message("Hello") | {"attachments": [w.attachment]},
    },
    "threads.add_client_tool_output": lambda w: {"thread_id": w.thread, "result": {"found": 1}},
    "threads.add_structured_input": lambda w: {
        "thread_id": w.thread,
        "item_id": w.questions,
        "input": {"answers": {"why": {"values": ["because"]}}},
    },
    "threads.retry_after_item": lambda w: {"thread_id": w.thread, "item_id": w.message},
    "threads.custom_action": lambda w: {"thread_id": w.thread, "item_id": w.widget, "action": {"type": "press"}},
    "threads.sync_custom_action": lambda w: {"thread_id": w.thread, "item_id": w.widget, "action": {"type": "press"}},
    "threads.update": lambda w: {"thread_id": w.thread, "title": "Mine"},
    "threads.delete": lambda w: {"thread_id": w.thread},
    "items.list": lambda w: {"thread_id": w.thread, "after": w.message, "limit": 5},
    "items.feedback": lambda w: {"thread_id": w.thread, "item_ids": [w.answer], "kind": "negative"},
    "attachments.create": lambda _: {"name": "a.txt", "size": 3, "mime_type": "text/plain"},
    "attachments.delete": lambda w: {"attachment_id": w.attachment},
    "input.transcribe": lambda _: {"audio_base64": "AAAA", "mime_type": "audio/webm"},
    "answer a question": lambda w: {
        "thread_id": w.asking_thread,
        "item_id": w.card,
        "action": {"type": APPROVAL_ACTION, "payload": {"approve": True}},
    },
    "threads that wait": lambda _: {},
    "threads that run": lambda _: {},
    "options": lambda _: {},
    "search": lambda w: {"q": w.mark},
    "export": lambda _: {},
    "follow a turn": lambda w: {"thread_id": w.thread},
    "stop a turn": lambda w: {"thread_id": w.thread},
    "list threads as staff": lambda w: {"user_id": w.user},
    "read a thread as staff": lambda w: {"user_id": w.user, "thread_id": w.thread},
    "list items as staff": lambda w: {"user_id": w.user, "thread_id": w.thread},
}
# What the caller's own request is answered with, where it is not 200.
NOT_OFFERED = {
    "input.transcribe": 501,
    "list threads as staff": 404,
    "read a thread as staff": 404,
    "list items as staff": 404,
}
AS_OPERATION = {"answer a question": "threads.custom_action"}
"""Another row of an operation."""
ROUTES = {
    "threads that wait": ("GET", "/api/threads/waiting"),
    "threads that run": ("GET", "/api/threads/running"),
    "options": ("GET", "/api/client-config"),
    "export": ("GET", "/api/export"),
    "search": ("GET", "/api/search?q={q}"),
    "follow a turn": ("GET", "/api/threads/{thread_id}/live"),
    "stop a turn": ("POST", "/api/threads/{thread_id}/stop"),
    "list threads as staff": ("GET", "/api/staff/users/{user_id}/threads"),
    "read a thread as staff": ("GET", "/api/staff/users/{user_id}/threads/{thread_id}"),
    "list items as staff": ("GET", "/api/staff/users/{user_id}/threads/{thread_id}/items"),
}
"""What is no operation of the protocol."""
NOTHING_RUNS = {"follow a turn": 204}
KEPT = ("users", "sessions", "messages", "turns", "attachments", "feedback", "partial_log", "approvals", "tool_calls")
COUNTED = ("rates", "allowances")
"""What a user does is counted there, also if it is refused."""
TABLES = (*KEPT, *COUNTED)
ID_FIELDS = {"after", "attachments"}
MALFORMED = ("", " ", "x" * 300, "../../etc/passwd", "thr_\u202e", "' OR user_id <> '", "%00", "\x00", "\ud800")


def operations() -> dict[str, type[BaseModel]]:
    def members(union: Any) -> Iterator[type[BaseModel]]:
        for member in get_args(union):
            if isinstance(member, type) and issubclass(member, BaseModel):
                member.model_rebuild()
                yield member
            else:
                yield from members(member)

    return {member.model_fields["type"].default: member for member in members(ChatKitReq)}


def id_slots(params: Params, path: Path = ()) -> list[Path]:
    """Where a request names something that somebody owns."""
    found: list[Path] = []
    for name, value in params.items():
        here = (*path, name)
        if name in ID_FIELDS or name.endswith(("_id", "_ids")):
            found += [(*here, number) for number in range(len(value))] if isinstance(value, list) else [here]
        elif isinstance(value, dict):
            found += id_slots(value, here)
    return found


def id_fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The same, from the SDK's models: a row that leaves one out is incomplete."""
    found: set[tuple[str, ...]] = set()
    model.model_rebuild()
    for name, info in model.model_fields.items():
        if name in ID_FIELDS or name.endswith(("_id", "_ids")):
            found.add((*path, name))
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= id_fields(info.annotation, (*path, name))
    return found


def at(params: Params, path: Path) -> Any:
    value: Any = params
    for step in path:
        value = value[step]
    return value


def replaced(params: Params, values: dict[Path, Any]) -> Params:
    made = copy.deepcopy(params)
    for (*way, last), value in values.items():
        at(made, tuple(way))[last] = value
    return made


@asynccontextmanager
async def connected(database: URL) -> AsyncIterator[asyncpg.Connection]:
    connection = await connector(database)()
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    """Without the request id, which is all that may differ."""


class Matrix:
    """Asks a server as a stranger, and watches the owner's rows and the model."""

    everything = "SELECT md5(string_agg(t || row, '' ORDER BY t, row)) FROM ({}) x".format(
        " UNION ALL ".join(
            f"SELECT '{table}' AS t, to_jsonb(r)::text AS row FROM chat_{table} r WHERE user_id = $1"
            for table in TABLES
        )
    )

    def __init__(
        self,
        client: httpx2.AsyncClient,
        database: asyncpg.Connection,
        own: UserData,
        victim: UserData,
        calls: Callable[[], Awaitable[int]],
    ) -> None:
        self.client = client
        self.database = database
        self.own = own
        self.victim = victim
        self.calls = calls
        self.asked = 0

    async def ask(self, operation: str, params: Params, token: str | None) -> Answer:
        self.asked += 1
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        if operation in ROUTES:
            method, path = ROUTES[operation]
            quoted = {name: quote(value, safe="", errors="surrogatepass") for name, value in params.items()}
            response = await self.client.request(method, path.format(**quoted), headers=headers)
        else:
            # Lone surrogates travel as escapes.
            body = json.dumps({"type": AS_OPERATION.get(operation, operation), "params": params}).encode()
            response = await self.client.post("/api/chatkit", content=body, headers=headers)
        request_id = response.headers["x-request-id"].encode()
        return Answer(response.status_code, response.content.replace(request_id, b""))

    async def digest(self) -> str:
        """Over all rows of the victim."""
        return str(await self.database.fetchval(self.everything, self.victim.user))

    @staticmethod
    def token_of(user_data: UserData) -> str:
        return mint(SECRET, user_data.user, seconds=600, rules=RULES)

    async def check(self, operation: str) -> None:
        """Raises AssertionError that says what a stranger could see or do."""
        before, calls = await self.digest(), await self.calls()
        own = OWN[operation](self.own)
        token = self.token_of(self.own)
        for name, values, expected in self._rows(operation):
            answer = await self.ask(operation, replaced(own, values), token)
            assert self.victim.mark.encode() not in answer.body, f"{operation}, {name}: the victim's text came back"
            assert await self.digest() == before, f"{operation}, {name}: the victim's rows changed"
            if expected is None:
                assert 400 <= answer.status < 500 or answer.status == 501, f"{operation}, {name}: {answer}"
            else:
                absent = await self.ask(operation, replaced(own, expected), token)
                assert answer == absent, f"{operation}, {name}: {answer} differs from an absent one's {absent}"
                assert answer.status in {404, NOT_OFFERED.get(operation)}, f"{operation}, {name}: {answer}"
        await self._check_tokens(operation, own)
        assert await self.calls() == calls, f"{operation}: the model was called for a request that was refused"
        baseline = await self.ask(operation, own, token)
        expected_status = NOTHING_RUNS.get(operation) or NOT_OFFERED.get(operation, 200)
        assert baseline.status == expected_status, f"{operation}, own ids: {baseline}"
        assert self.victim.mark.encode() not in baseline.body, f"{operation}, own ids: the victim's text came back"
        assert await self.digest() == before, f"{operation}, own ids: the victim's rows changed"

    def _rows(self, operation: str) -> Iterator[tuple[str, dict[Path, Any], dict[Path, Any] | None]]:
        """A name, the ids to put in, and absent ids whose answer must be the same; None: any clear refusal."""
        own, foreign = OWN[operation](self.own), OWN[operation](self.victim)
        slots = id_slots(own)
        for count in range(1, len(slots) + 1):
            for some in itertools.combinations(slots, count):
                names = " and ".join(".".join(map(str, slot)) for slot in some)
                absent = {slot: self._absent(at(own, slot)) for slot in some}
                yield f"foreign {names}", {slot: at(foreign, slot) for slot in some}, absent
        for slot in slots:
            kind, absent = str(at(own, slot)).partition("_")[0], {slot: self._absent(at(own, slot))}
            where = ".".join(map(str, slot))
            for name, user_data in (("own", self.own), ("foreign", self.victim)):
                deleted = {"thr": user_data.deleted_thread, "atc": user_data.deleted_attachment}.get(
                    kind, user_data.deleted_item
                )
                yield f"{name} deleted {where}", {slot: deleted}, absent
                if kind not in {"thr", "atc"}:
                    yield f"{name} {where} under own other thread", {slot: user_data.other_message}, absent
            # An empty cursor is no cursor.
            for wrong in MALFORMED[slot[-1] == "after" :]:
                yield f"malformed {where} {wrong[:10]!r}", {slot: wrong}, None

    @staticmethod
    def _absent(value: str) -> str:
        if value.startswith(APPROVAL_PREFIX):
            return new_approval_id()
        kinds = {"thr": "thread", "atc": "attachment", "tc": "tool_call"}
        return new_id(kinds.get(value.partition("_")[0], "message"))  # type: ignore[arg-type] # one of the SDK's kinds

    async def _check_tokens(self, operation: str, own: Params) -> None:
        user = self.own.user
        tokens = {
            "no token": None,
            "nonsense": "a.b.c",
            "expired": mint(SECRET, user, seconds=-60, rules=RULES),
            "another issuer's": mint(SECRET, user, seconds=60, rules=TokenRules(issuer="https://other.example")),
            "nobody's": mint(SECRET, user, seconds=60),
            "another key's": mint("o" * 48, user, seconds=60, rules=RULES),
        }
        answers = {name: await self.ask(operation, own, token) for name, token in tokens.items()}
        assert {answer.status for answer in answers.values()} == {401}, f"{operation}: {answers}"
        assert len({answer.body for answer in answers.values()}) == 1, f"{operation}: {answers}"
