"""Requests of ours before the rules of a provider: Mistral publishes the validators of its own server."""

import asyncio
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore
from tests.faults.harness import new_user, start
from tests.support.processes import ModelServer, thread_id_of
from tests.support.random_threads import random_thread

HERE = Path(__file__).parent
THREADS = 60
TOOLS = [("echo", '{"words": "one"}'), ("echo", '{"words": "two"}')]
QUESTIONS: list[dict[str, Any]] = [
    {"words": 2},
    {"tools": TOOLS, "rounds": 3},
    {"tools": TOOLS, "call_ids": ["same"] * 2},
]


def complaints(installed: Path, directory: Path, bodies: list[dict[str, Any]]) -> list[str]:
    file = directory / "bodies.json"
    file.write_text(json.dumps(bodies))
    command = [installed / "mistral/bin/python", HERE / "mistral_rules.py", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    *findings, read = done.stdout.splitlines()
    assert int(read) == len(bodies)
    return findings


def test_no_request_is_refused_for_its_form(
    installed: Path, tmp_path: Path, shared_database: URL, strict_model_server: ModelServer
) -> None:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools"}
    replica = start(tmp_path, shared_database, strict_model_server, **own)
    user = new_user()
    client = replica.client(user)

    async def made() -> list[str]:
        database = Database(shared_database, pool_size=1)
        store = DatabaseStore(database)
        try:
            return [await random_thread(store, user, random.Random(1000 + seed)) for seed in range(THREADS)]
        finally:
            await database.close()

    for number, thread_id in enumerate(asyncio.run(made())):
        question = QUESTIONS[number % len(QUESTIONS)] | {"note": user}
        assert client.post_message(thread_id, "SCRIPT " + json.dumps(question))
    asked = client.create("SCRIPT " + json.dumps({"tools": [("ask_title", "{}")], "note": user}))
    client.events("threads.add_client_tool_output", thread_id=thread_id_of(asked), result={"title": "A page"})
    client.post_message(thread_id_of(asked), f"And now, {user}?")
    bodies = [call["body"] for call in strict_model_server.calls() if user in json.dumps(call["body"])]
    assert len(bodies) > THREADS
    assert complaints(installed, tmp_path, bodies) == []
    assert replica.process.stop() == 0


CALL = {"id": "call_0", "type": "function", "function": {"name": "echo", "arguments": "{}"}}
WRONG: dict[str, list[dict[str, Any]]] = {
    "a long id": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_0", "content": "b"},
    ],
    "an output without a call": [
        {"role": "user", "content": "a"},
        {"role": "tool", "tool_call_id": "abcdefgh1", "content": "b"},
    ],
    "the assistant last": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_rules_are_those_that_we_are_held_to(installed: Path, tmp_path: Path, kind: str) -> None:
    assert complaints(installed, tmp_path, [{"messages": WRONG[kind]}]) != []
