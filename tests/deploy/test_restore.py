"""A backup is restored elsewhere with the commands of docs/operations.md, and serves what the lost one had."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.db.binaries import find_binaries
from tests.conftest import query
from tests.faults.harness import SECRET, environment
from tests.support.files import Uploader
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    http,
    message,
    run_cli,
)

PAGE = (ROOT / "docs" / "operations.md").read_text()


def block(name: str) -> str:
    (found,) = re.findall(rf"```bash {name}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run_commands(commands: str, directory: Path, variables: dict[str, str]) -> None:
    binaries = find_binaries(None)
    assert binaries is not None
    programs = f"{binaries.directory}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=directory,
        env=clean_environment(**variables) | {"PATH": programs},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def client_of(server: ChatProcess, user: str) -> ChatClient:
    return ChatClient(server.base_url, mint(SECRET, user, seconds=600))


@pytest.mark.slow
def test_a_backup_is_restored_elsewhere(tmp_path: Path, database_url: URL, model_server: ModelServer) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    settings = environment(database_url, model_server, CHAT_URL_SECRET="u" * 48, CHAT_ERASURE_KEY="e" * 48)
    settings |= {"CHAT_DATA_DIR": str(first)}
    server = ChatProcess(tmp_path, **settings).wait_until_ready()
    alice, bob = client_of(server, "alice"), client_of(server, "bob")
    up = Uploader(alice)
    file = up.ready(b"A file of alice.")
    sent = message("Look at this pearl") | {"attachments": [file]}
    created = alice.events("threads.create", input=sent)
    thread = created[0]["thread"]["id"]
    bob.create("I shall be erased")
    # Cut off by the dump.
    unfinished = alice.stream("threads.create", input=message('SCRIPT {"words": 3, "then": "hang"}'))
    unfinished.wait_for_text()
    items = alice.items(thread)
    url = up.describe(file).json()["download_url"].removeprefix(server.base_url)

    dump, _, files = block("back-up").partition("\n")
    assert dump.startswith("pg_dump")
    assert files.startswith("tar")
    place = {"DATABASE_URL": libpq(database_url), "CHAT_DATA_DIR": str(first)}
    run_commands(dump, tmp_path, place)
    # Between the two, so the dump has this user, and the files know better.
    erased = run_cli(tmp_path, "user", "erase", "bob", "--yes", **settings)
    assert erased.returncode == 0, erased.stderr
    run_commands(files, tmp_path, place)
    unfinished.disconnect()
    assert server.stop() == 0

    restored = database_url.set(database="chat_restored")
    connected = {"PGHOST": str(database_url.query["host"]), "PGUSER": str(database_url.username)}
    run_commands(block("restore"), tmp_path, connected | {"NEW_DATA_DIR": str(second)})
    try:
        there = settings | {"DATABASE_URL": libpq(restored), "CHAT_DATA_DIR": str(second)}
        assert query(restored, "SELECT 1 FROM chat_users WHERE user_id = 'bob'") != []
        run_commands(block("after-restore"), tmp_path, there)
        assert query(restored, "SELECT 1 FROM chat_users WHERE user_id = 'bob'") == []
        again = ChatProcess(tmp_path, **there, CHAT_TURN_STALE_SECONDS="2").wait_until_ready()
        check(again, thread, items, url, unfinished.thread_id)
        assert again.stop() == 0
    finally:
        run_commands("dropdb --force chat_restored", tmp_path, connected)


def check(server: ChatProcess, thread: str, items: list[dict[str, Any]], url: str, unfinished: str) -> None:
    ready = http.get(f"{server.base_url}/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    alice = client_of(server, "alice")
    assert without_urls(alice.items(thread)) == without_urls(items)
    # A link from before the loss, because its secret was kept.
    assert http.get(f"{server.base_url}{url}").content == b"A file of alice."
    assert [found["thread_id"] for found in alice.get("/api/search", q="pearl")["data"]] != []
    assert alice.post_message(thread, "Are you there?")[-1]["type"] != "error"
    # The answer that ran at that moment is no more in the way.
    assert alice.post_message(unfinished, "And here?")[-1]["type"] != "error"
    assert client_of(server, "bob").call("threads.list")["data"] == []


def without_urls(items: list[dict[str, Any]]) -> Any:
    return json.loads(re.sub(r'"http[^"]*"', '""', json.dumps(items)))
