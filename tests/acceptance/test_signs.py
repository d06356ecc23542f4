"""What an operator sees of a fault: readiness, the log, the metrics."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.conftest import execute, query
from tests.faults.harness import SECRET, environment, new_user, script
from tests.support.processes import ChatClient, ChatProcess, ModelServer, eventually, http, message

LIST = {"type": "threads.list", "params": {}}


@pytest.fixture
def server(tmp_path: Path, database_url: URL, model_server: ModelServer) -> Iterator[ChatProcess]:
    started = ChatProcess(tmp_path, **environment(database_url, model_server)).wait_until_ready()
    yield started
    assert started.stop() == 0


def lines(server: ChatProcess, event: str) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in read if line["event"] == event]


def metric(server: ChatProcess, name: str) -> float:
    found = [line for line in http.get(f"{server.base_url}/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].rpartition(" ")[2])


def ready(server: ChatProcess) -> dict[str, Any]:
    response = http.get(f"{server.base_url}/health/ready")
    body: dict[str, Any] = response.json()
    assert (response.status_code == 200) is (body["status"] == "ok")
    return body


def test_a_database_that_takes_no_writes(server: ChatProcess, database_url: URL) -> None:
    client = ChatClient(server.base_url, mint(SECRET, new_user(), seconds=600))
    name, sessions = database_url.database, f"FROM pg_stat_activity WHERE datname = '{database_url.database}'"
    cut = f"SELECT pg_terminate_backend(pid) {sessions} AND pid <> pg_backend_pid()"
    execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on", cut)
    refused = client.post("threads.create", input=message("Hello"))
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert ready(server)["database"] == "read_only"
    assert metric(server, "chatkit_database_available") == 0
    assert lines(server, "database_is_read_only")[0]["cure"].startswith("the address of the primary")
    # Twice more, and the log has said it once.
    assert [ready(server)["status"] for _ in range(2)] == ["unavailable", "unavailable"]
    assert len([line for line in lines(server, "readiness") if line["database"] == "read_only"]) == 1
    # This session writes although the database is read-only.
    execute(database_url, "SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET ALL", cut)
    eventually(lambda: ready(server)["status"] == "ok")
    assert client.create("Hello")


def test_a_database_that_was_not_migrated(tmp_path: Path, empty_url: URL, model_server: ModelServer) -> None:
    server = ChatProcess(tmp_path, **environment(empty_url, model_server))
    eventually(lambda: _answers(server))
    token = mint(SECRET, new_user(), seconds=600)
    refused = http.post(f"{server.base_url}/api/chatkit", json=LIST, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert ready(server)["revision"]["seen"] is None
    assert lines(server, "schema_does_not_fit")[0]["cure"] == "chatkit-postgres migrate"
    assert server.stop() == 0


def _answers(server: ChatProcess) -> bool:
    try:
        return http.get(f"{server.base_url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def test_the_line_of_a_request_has_the_fault_of_its_token(server: ChatProcess) -> None:
    tokens = {"signature": mint("x" * 32, "alice", seconds=60), "expired": mint(SECRET, "alice", seconds=-3600)}
    for fault, token in tokens.items():
        refused = http.get(f"{server.base_url}/api/usage", headers={"Authorization": f"Bearer {token}"})
        assert (refused.status_code, fault in refused.text) == (401, False)
    assert http.get(f"{server.base_url}/api/usage").status_code == 401

    def faults() -> list[str]:
        return [line["fault"] for line in lines(server, "request") if line["status"] == 401]

    eventually(lambda: faults() == [*tokens, "no token"], what=f"the log has {tokens.keys()}")


def test_turns_of_a_process_that_was_killed_are_counted_by_the_one_that_closes_them(
    tmp_path: Path, database_url: URL, model_server: ModelServer, server: ChatProcess
) -> None:
    settings = environment(database_url, model_server, CHAT_TURN_STALE_SECONDS="2")
    (tmp_path / "second").mkdir()
    killed, living = ChatProcess(tmp_path, **settings), ChatProcess(tmp_path / "second", **settings)
    user = new_user()
    client = ChatClient(killed.wait_until_ready().base_url, mint(SECRET, user, seconds=600))
    living.wait_until_ready()
    stream = client.stream("threads.create", input=message(script(words=3000, delay=0.01)))
    stream.wait_for_text()
    killed.stop(signal.SIGKILL)
    stream.wait()
    counted = 'chatkit_turns_total{operation="threads.create",state="interrupted"}'
    eventually(lambda: metric(living, counted) == 1)
    (turn,) = query(database_url, f"SELECT turn_id, state FROM chat_turns WHERE user_id = '{user}'")
    assert turn["state"] == "interrupted"
    assert lines(living, "interrupted_turns_closed")[0]["turn_ids"] == [str(turn["turn_id"])]
    assert living.stop() == 0
