"""Servers on one database, and the invariants that must hold once a fault has healed."""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.store.ids import session_uuid
from tests.conftest import query
from tests.support.model_script import user_texts
from tests.support.processes import ChatClient, ChatProcess, Event, ModelServer, done_items, eventually, http, texts

Report = Callable[[str, object], None]
"""pytest's record_property."""

SECRET = "f" * 48


class Assistants:
    """Which one answers, where a test does not say: an agent, or the server of a team (``--assistant``)."""

    named = "tests.support.assistants:build"


@dataclass
class Replica:
    process: ChatProcess
    database: URL
    model: ModelServer

    def client(self, user: str) -> ChatClient:
        return ChatClient(self.process.base_url, mint(SECRET, user, seconds=3600))

    def metric(self, name: str) -> float:
        lines = http.get(f"{self.process.base_url}/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def environment(database: URL, model: ModelServer, **more: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "OPENAI_BASE_URL": model.url,
        "CHAT_MODEL": "scripted",
        "CHAT_MODEL_API": "chat_completions",
        "CHAT_ASSISTANT": Assistants.named,
        "CHAT_HEARTBEAT_SECONDS": "0.3",
        # A failure is a failure at once.
        "CHAT_MODEL_RETRIES": "0",
        # The faults are made by the dozen, and one answer has 15 MB.
        "CHAT_REQUESTS_PER_MINUTE": "100000",
        "CHAT_TURNS_PER_USER": "1000",
        "CHAT_MAX_ANSWER_CHARACTERS": "20000000",
        **more,
    }


NO_CHORES = {"CHAT_TURN_STALE_SECONDS": "3600"}
"""For tests that compare rows: the clean-up of files changes some of its own accord otherwise."""


def start(directory: Path, database: URL, model: ModelServer, *arguments: str, **more: str) -> Replica:
    process = ChatProcess(directory, *arguments, **environment(database, model, **more))
    return Replica(process.wait_until_ready(), database, model)


def replica(directory: Path, database: URL, model: ModelServer, **more: str) -> Iterator[Replica]:
    started = start(directory, database, model, **more)
    yield started
    assert started.process.stop() == 0


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:12]}"


def script(**steps: Any) -> str:
    return "SCRIPT " + json.dumps(steps | {"note": uuid.uuid4().hex})


def sent_by_model(model: ModelServer, user_text: str, *, before: float | None = None) -> str:
    """What the model's log says it had sent (before a moment) in answer to a text."""
    call = call_of(model, user_text)
    return "".join(piece for sent, piece in call["sent"] if before is None or sent <= before)


def call_of(model: ModelServer, user_text: str) -> dict[str, Any]:
    """The log of the one call whose last message is this text."""
    (call,) = [call for call in model.calls() if user_texts(call["body"].get("messages", []))[-1:] == [user_text]]
    return call


def model_stopped(model: ModelServer, user_text: str, *, within: float) -> None:
    """The model's stream was really ended, and not read to its end."""
    eventually(lambda: call_of(model, user_text)["ended"] is not None, within)
    assert not call_of(model, user_text)["finished"]


@dataclass
class Witness:
    """Records the ids of the items that one user's connections received as done, in one thread."""

    user: str
    thread_id: str
    acknowledged_ids: list[list[str]] = field(default_factory=list)

    def record(self, events: Iterable[Event]) -> None:
        self.acknowledged_ids.append([item["id"] for item in done_items(list(events))])

    @property
    def acknowledged(self) -> int:
        return sum(map(len, self.acknowledged_ids))


def check_invariants(
    database: URL, witness: Witness, client: ChatClient, *, replaced: Iterable[str] = (), stale_seconds: float = 0
) -> None:
    """Raises AssertionError that names the invariant. Waits for turns that are just ending, and for those of a dead
    process: one is closed when it is stale, by maintenance that comes at most three quarters of that time later."""
    owner, session = witness.user, session_uuid(witness.thread_id)
    running = (
        "SELECT operation, started_at, heartbeat_at, ended_at, now() AS now"
        f" FROM chat_turns WHERE user_id = '{owner}' AND state = 'running'"
    )
    try:
        eventually(lambda: query(database, running) == [], 45 + 1.75 * stale_seconds)
    except AssertionError:
        raise AssertionError(f"INVARIANT: no turn stays running: {query(database, running)}") from None
    rows = query(
        database,
        f"SELECT item_id, position, content, is_draft FROM chat_messages"
        f" WHERE user_id = '{owner}' AND session_id = '{session}' ORDER BY position",
    )
    positions = {row["item_id"]: row["position"] for row in rows}
    assert len(positions) == len(rows), "INVARIANT: every item is stored once"
    assert len(set(positions.values())) == len(rows), "INVARIANT: positions are unique"
    assert not any(row["is_draft"] for row in rows), "INVARIANT: no draft is left over"
    gone = set(replaced)
    for acknowledged_ids in witness.acknowledged_ids:
        kept = [item_id for item_id in acknowledged_ids if item_id not in gone]
        missing = [item_id for item_id in kept if item_id not in positions]
        assert not missing, f"INVARIANT: what was acknowledged is stored: {missing}"
        order = [positions[item_id] for item_id in kept]
        assert order == sorted(order), "INVARIANT: items keep the order of their acknowledgement"
    listed = [item["id"] for item in all_items(client, witness.thread_id)]
    assert listed == [row["item_id"] for row in rows], "INVARIANT: the API shows what is stored, in order"
    elsewhere = query(
        database,
        f"SELECT DISTINCT user_id FROM chat_messages WHERE user_id <> '{owner}'"
        f" AND item_id IN (SELECT item_id FROM chat_messages WHERE user_id = '{owner}')",
    )
    assert elsewhere == [], "INVARIANT: an item belongs to one owner"
    check_found(database, witness, client)
    fence = query(database, f"SELECT current_turn_id FROM chat_sessions WHERE user_id = '{owner}'")
    assert all(row["current_turn_id"] is None for row in fence), "INVARIANT: no thread is held by an ended turn"


def check_found(database: URL, witness: Witness, client: ChatClient) -> None:
    """Search finds each message, as it was stored last."""
    owner, session = witness.user, session_uuid(witness.thread_id)
    rows = query(
        database,
        f"SELECT item_id, content FROM chat_messages WHERE user_id = '{owner}' AND session_id = '{session}'"
        " AND item_type IN ('user_message', 'assistant_message') AND content ~ '[a-z0-9]'"
        f" AND NOT EXISTS (SELECT 1 FROM chat_turns WHERE user_id = '{owner}' AND session_id = '{session}'"
        " AND error_code IN ('input_guardrail_tripped', 'content_refused', 'context_too_long', 'picture_refused'))",
    )
    for row in rows:
        words = re.findall("[a-zA-Z0-9]+", row["content"])
        for asked in (words[:3], words[-3:]):
            query_text = " ".join(word[:100] for word in asked)
            found = [hit["item_id"] for hit in all_hits(client, f'"{query_text}"')]
            assert row["item_id"] in found, f"INVARIANT: what was stored is found: {row['item_id']} by {asked}"


def check_usable(witness: Witness, client: ChatClient) -> None:
    """The thread takes a message at once, and answers it."""
    response = client.stream(
        "threads.add_user_message",
        thread_id=witness.thread_id,
        input={"content": [{"type": "input_text", "text": "still there?"}], "attachments": [], "inference_options": {}},
    )
    events = response.wait()
    assert response.status == 200, f"INVARIANT: no thread is stuck: {response.status}"
    assert len(done_items(events)) == 2, "INVARIANT: no thread is stuck"
    witness.record(events)


def all_items(client: ChatClient, thread_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after = None
    while True:
        page = client.call("items.list", thread_id=thread_id, order="asc", limit=100, after=after)
        items += page["data"]
        after = page.get("after")
        if not page["has_more"]:
            return items


def all_hits(client: ChatClient, q: str) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = []
    after = ""
    while True:
        page = client.get("/api/search", q=q, limit=100, after=after)
        hits += page["data"]
        after = page["after"]
        if not page["has_more"]:
            return hits


def last_text(client: ChatClient, thread_id: str) -> str:
    """The text of the newest assistant's message."""
    answers = [item for item in all_items(client, thread_id) if item["type"] == "assistant_message"]
    return texts(answers)[-1] if answers else ""


def state_of(database: URL, user: str) -> list[str]:
    """The states of a user's turns, oldest first."""
    rows = query(database, f"SELECT state FROM chat_turns WHERE user_id = '{user}' ORDER BY started_at")
    return [row["state"] for row in rows]
