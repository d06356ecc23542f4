"""The agent's tool: it finds what its user said elsewhere, and nobody else's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import (
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    done_items,
    texts,
    thread_id_of,
)


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_an_agent_finds_what_its_user_said(
    tmp_path: Path, shared_database: URL, strict_model_server: ModelServer, api: str
) -> None:
    settings = environment(shared_database, strict_model_server) | {"CHAT_MODEL_API": api}
    process = ChatProcess(tmp_path, **settings, CHAT_SEARCH_TOOL="true").wait_until_ready()

    def client() -> ChatClient:
        return ChatClient(process.base_url, mint(SECRET, new_user(), seconds=600))

    def found(user: ChatClient, query: str) -> str:
        """What the tool tells the model, which repeats it."""
        thread_id = thread_id_of(user.create(f"use the tool search_conversations {json.dumps({'query': query})}"))
        return texts(done_items(user.post_message(thread_id, "what did search_conversations say")))[-1]

    alice, bob = client(), client()
    alice.create("The code of the gate is QX-4711 & more")
    assert "QX-4711 & more" in found(alice, "gate code")
    assert "Nothing was found." in found(bob, "gate code")
    assert "q: write what to look for." in found(bob, " ")
    # The words of the present conversation are in the request already.
    assert "Nothing was found." in found(client(), "tool")
    assert process.stop() == 0


def test_a_server_that_is_no_agent_takes_no_tool(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    named = {"CHAT_ASSISTANT": "tests.support.servers:ScriptedServer", "CHAT_SEARCH_TOOL": "true"}
    command = [sys.executable, "-m", "chatkit_postgres", "check"]
    done = subprocess.run(
        command,
        env=clean_environment(**environment(shared_database, model_server) | named),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "CHAT_SEARCH_TOOL is a tool for one" in done.stdout + done.stderr
