"""A primary dies and its standby takes over; then the old one is found, read-only, behind the address."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.db import migrations
from tests.conftest import execute, query
from tests.faults.harness import SECRET, Report, Witness, check_usable, environment, new_user
from tests.support.failover import Address, Pair
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, eventually, message

RESUMES_SECONDS = 10


class Caller:
    """A user who goes on talking, whatever happens."""

    def __init__(self, process: ChatProcess) -> None:
        self.user = new_user()
        self.client = ChatClient(process.base_url, mint(SECRET, self.user, seconds=3600))
        self.answers: list[tuple[float, int, str]] = []
        """When, the status, and the code of an error."""
        self.acknowledged: list[str] = []
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._leaving.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _talk(self) -> None:
        while not self._leaving.is_set():
            stream = self.client.stream("threads.create", input=message("Hello"))
            events = stream.wait()
            status = stream.status or 0
            code = "" if status == 200 else stream.answer
            if stream.errors:
                status, code = 0, str(stream.errors[0])
            self.answers.append((time.monotonic(), status, code))
            self.acknowledged += [item["id"] for item in done_items(events)]
            time.sleep(0.02)


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    directory.chmod(0o755)
    made = Pair(directory, postgres_bin)
    yield made
    made.close()


def served(directory: Path, url: str, model: ModelServer, pair: Pair) -> ChatProcess:
    migrations.upgrade(pair.first.url())
    settings = environment(pair.first.url(), model) | {"DATABASE_URL": url, "CHAT_DATABASE_POOL_SIZE": "4"}
    return ChatProcess(directory, **settings).wait_until_ready()


def kept_on(pair: Pair, user: str) -> set[str]:
    found = query(pair.second.url(), f"SELECT item_id FROM chat_messages WHERE user_id = '{user}'")
    return {row["item_id"] for row in found}


def check_answers(callers: list[Caller], failed_at: float, report: Report) -> None:
    report("acknowledged", sum(len(caller.acknowledged) for caller in callers))
    for caller in callers:
        refused = [(status, code) for _, status, code in caller.answers if status != 200]
        # An answer, or to come back: in the status, or in the stream that had begun.
        assert all(status in {0, 503} and _is_said(code) for status, code in refused), refused
        again = [at for at, status, _ in caller.answers if status == 200 and at > failed_at]
        assert again, "service does not resume"
        assert again[0] - failed_at < RESUMES_SECONDS
        print(f"{len(refused)} refused, service after {again[0] - failed_at:.1f} s")  # noqa: T201 - for people who look


def _is_said(code: str) -> bool:
    return "database_unavailable" in code or "The service is busy or restarting" in code


def test_a_standby_takes_over(tmp_path: Path, pair: Pair, model_server: ModelServer, record_property: Report) -> None:
    hosts = f"127.0.0.1:{pair.first.port},127.0.0.1:{pair.second.port}"
    url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    process = served(tmp_path, url, model_server, pair)
    callers = [Caller(process) for _ in range(3)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(len(caller.answers) > 3 for caller in callers))
    failed_at = time.monotonic()
    pair.first.kill()
    pair.second.promote()
    eventually(lambda: all(_has_resumed(caller, failed_at) for caller in callers), RESUMES_SECONDS * 2)
    for caller in callers:
        caller.stop()
    check_answers(callers, failed_at, record_property)
    for caller in callers:
        assert set(caller.acknowledged) <= kept_on(pair, caller.user)
    assert '"level": "error"' not in process.log
    assert process.stop() == 0


def _has_resumed(caller: Caller, since: float) -> bool:
    return any(status == 200 and at > since + 0.2 for at, status, _ in caller.answers)


def test_an_old_primary_behind_the_same_address_is_left(
    tmp_path: Path, pair: Pair, model_server: ModelServer, record_property: Report
) -> None:
    """An address moves to the new primary, then by mistake to the old one, and back; what is connected to the old one
    by then stays connected."""
    address = Address(pair.first.port)
    process = served(tmp_path, f"postgresql://postgres@127.0.0.1:{address.port}/postgres", model_server, pair)
    callers = [Caller(process) for _ in range(3)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(len(caller.answers) > 3 for caller in callers))
    pair.first.kill()
    pair.second.promote()
    moved_at = time.monotonic()
    address.move(pair.second.port, cut=True)
    eventually(lambda: all(_has_resumed(caller, moved_at) for caller in callers), RESUMES_SECONDS * 2)
    pair.first.stand_by()
    pair.first.start()
    assert query(pair.first.url(), "SELECT pg_is_in_recovery() AS is_old")[0]["is_old"]
    address.move(pair.first.port, cut=True)
    seen = [len(caller.answers) for caller in callers]
    eventually(lambda: all(len(caller.answers) > before + 3 for caller, before in zip(callers, seen, strict=True)))
    client = callers[0].client
    response = client.post("threads.create", input=message("Hello"))
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    back_at = time.monotonic()
    address.move(pair.second.port, cut=False)
    eventually(lambda: all(_has_resumed(caller, back_at) for caller in callers), RESUMES_SECONDS * 2)
    for caller in callers:
        caller.stop()
    check_answers(callers, back_at, record_property)
    for caller in callers:
        assert set(caller.acknowledged) <= kept_on(pair, caller.user)
    thread_id = client.call("threads.list")["data"][0]["id"]
    check_usable(Witness(callers[0].user, thread_id), client)
    assert process.stop() == 0
    address.close()


def test_a_server_that_is_read_only_by_its_settings_heals(
    tmp_path: Path, pair: Pair, model_server: ModelServer
) -> None:
    """As managed databases do it whose disk is full."""
    url = f"postgresql://postgres@127.0.0.1:{pair.first.port}/postgres"
    process = served(tmp_path, url, model_server, pair)
    client = ChatClient(process.base_url, mint(SECRET, new_user(), seconds=3600))
    assert len(done_items(client.create("Hello"))) == 2
    for is_read_only in ("on", "off"):
        execute(
            pair.first.url(),
            f"ALTER SYSTEM SET default_transaction_read_only = {is_read_only}",
            "SELECT pg_reload_conf()",
        )
        eventually(lambda: _writes(client) is (is_read_only == "off"), RESUMES_SECONDS)  # noqa: B023 - called at once
    assert process.stop() == 0


def _writes(client: ChatClient) -> bool:
    response: Any = client.post("threads.create", input=message("Hello"))
    assert response.status_code in {200, 503}, response.text
    return response.status_code == 200 and '"error"' not in response.text
