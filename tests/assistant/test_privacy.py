"""What is said here goes to the configured model server and to nobody else, whichever run says it."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    done_items,
    run_cli,
    texts,
)


class Trap:
    """A proxy to the world outside: what wants to leave is asked of it, and refused."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).decode(errors="replace").partition("\r\n")[0])
                connection.sendall(b"HTTP/1.1 502 no\r\ncontent-length: 0\r\n\r\n")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("is_traced", [False, True], ids=["untraced", "traced"])
def test_runs_inside_of_an_assistant_ask_the_configured_server_and_are_traced_only_if_that_is_wanted(
    tmp_path: Path, shared_database: URL, model_server: ModelServer, trap: Trap, api: str, is_traced: bool
) -> None:
    """A title, a guardrail, and the answer itself."""
    settings = environment(shared_database, model_server)
    settings |= {"CHAT_MODEL_API": api, "CHAT_ASSISTANT": "tests.support.assistants:build_with_runs_of_its_own"}
    settings |= {"OPENAI_API_KEY": "key", "HTTPS_PROXY": trap.url, "NO_PROXY": "127.0.0.1"}
    if is_traced:
        settings["CHAT_TRACING"] = "true"
    process = ChatProcess(tmp_path, **settings).wait_until_ready()
    word = new_user()
    try:
        client = ChatClient(process.base_url, mint(SECRET, word, seconds=60))
        events = client.create(f"Hello {word}")
    finally:
        assert process.stop() == 0
    assert texts(done_items(events)[1:]) == [f"You said 'Hello {word}', and that is message 1 of yours."]
    titles = [event["thread"]["title"] for event in events if event["type"] == "thread.updated"]
    assert titles == [f"You said 'Title of {word}', and that is message 1 of yours."]
    calls = [call for call in model_server.calls() if word in json.dumps(call["body"])]
    assert [call["api"] for call in calls] == [api] * 3
    assert [asked for asked in trap.asked if not asked.startswith("CONNECT api.openai.com:443")] == []
    assert bool(trap.asked) == is_traced


def test_a_proxy_that_cannot_be_used_ends_the_start_with_the_reason(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    settings = environment(shared_database, model_server, ALL_PROXY="socks5://127.0.0.1:9")
    for command in ("serve", "check"):
        done = run_cli(tmp_path, command, **settings)
        assert done.returncode == {"serve": 2, "check": 1}[command]
        assert "socks5" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


KEYS = """
import os
from agents.tracing.processors import default_exporter
from chatkit_postgres.assistant.models import ModelOptions, configure_agents_sdk, model_provider

for base_url in (None, "https://other.example/v1"):
    for tracing_key in (None, "ours"):
        # What is set is set for a whole process.
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        options = ModelOptions(api_key="theirs", base_url=base_url, is_traced=True, tracing_key=tracing_key)
        configure_agents_sdk(options, model_provider(options))
        print(default_exporter().api_key, flush=True)
        os._exit(0)
"""


@pytest.mark.slow
def test_traces_carry_no_key_of_another_server() -> None:
    environment = clean_environment(OPENAI_API_KEY="theirs")
    done = subprocess.run(
        [sys.executable, "-c", KEYS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["theirs", "ours", "none", "ours"]
