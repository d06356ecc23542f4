"""From the version before to this one and back, under the traffic of users, without a gap."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.conftest import query
from tests.faults.harness import environment
from tests.support.installed import InstalledProcess, run_installed
from tests.support.processes import ChatProcess, ColdProcess, ModelServer, run_cli
from tests.upgrade.locks import Locks
from tests.upgrade.traffic import Traffic

MAX_LOCK_SECONDS = 0.1
"""Of a migration that has the machine to itself: test_statements.py."""
MAX_LOCK_SECONDS_UNDER_TRAFFIC = 0.5


@pytest.fixture
def previous(request: pytest.FixtureRequest) -> Path:
    """The environment of the version before."""
    return Path(request.config.getoption("--upgrade")).resolve() / "server"


@pytest.fixture
def settings(empty_url: URL, model_server: ModelServer) -> dict[str, str]:
    own = environment(empty_url, model_server, CHAT_URL_SECRET="u" * 48, CHAT_DRAIN_SECONDS="20")
    # The packaged one of each version.
    del own["CHAT_ASSISTANT"]
    return own


class Fleet:
    """Servers of both versions on one database and one folder of files, behind a load balancer."""

    def __init__(self, previous: Path, directory: Path, settings: dict[str, str], traffic: Traffic) -> None:
        self._previous = previous
        self._directory = directory
        self._settings = settings
        self._traffic = traffic
        self._running: list[ChatProcess] = []

    def start(self, *, is_previous: bool) -> ChatProcess:
        process: ChatProcess = (
            InstalledProcess(self._previous, self._directory, **self._settings)
            if is_previous
            else ColdProcess(self._directory, **self._settings)
        )
        self._running.append(process)
        process.wait_until_ready()
        self._traffic.balancer.add(process.base_url)
        return process

    def remove(self, process: ChatProcess) -> None:
        """As a load balancer and a process manager do it: no new requests, then SIGTERM."""
        self._traffic.balancer.remove(process.base_url)
        self._running.remove(process)
        assert process.stop() == 0

    def end(self) -> None:
        for process in self._running:
            process.stop()


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def fleet(previous: Path, tmp_path: Path, settings: dict[str, str], traffic: Traffic) -> Iterator[Fleet]:
    made = Fleet(previous, tmp_path, settings, traffic)
    yield made
    made.end()


@pytest.mark.timeout(900)
def test_nobody_notices_an_upgrade_and_the_way_back(
    request: pytest.FixtureRequest,
    previous: Path,
    fleet: Fleet,
    traffic: Traffic,
    tmp_path: Path,
    settings: dict[str, str],
    empty_url: URL,
) -> None:
    seconds: float = request.config.getoption("--upgrade-seconds")
    migrated = run_installed(previous, tmp_path, "migrate", **settings)
    assert migrated.returncode == 0, migrated.stderr
    before = revision(empty_url)
    old = fleet.start(is_previous=True)
    steps: list[tuple[str, int, int]] = []

    def watch(step: str) -> None:
        turns, failures = traffic.turns, len(traffic.failures)
        time.sleep(seconds)
        steps.append((step, traffic.turns - turns, len(traffic.failures) - failures))

    with traffic:
        watch("the version before")
        with Locks(empty_url).watched() as locks:
            upgraded = run_cli(tmp_path, "migrate", **settings)
            assert upgraded.returncode == 0, upgraded.stderr
        assert revision(empty_url) != before
        watch("on the new schema")
        new = fleet.start(is_previous=False)
        watch("side by side")
        fleet.remove(old)
        watch("this version")
        old = fleet.start(is_previous=True)
        watch("side by side, on the way back")
        fleet.remove(new)
        watch("the version before, again")
    report(request, steps, traffic, locks)
    assert traffic.failures == []
    # Of twenty a second; a machine that does other things leaves some out.
    assert all(turns >= seconds * 5 for _, turns, _ in steps), steps
    assert traffic.lost(old.base_url) == []
    assert locks.looks > 10
    assert max(locks.held.values(), default=0) < MAX_LOCK_SECONDS_UNDER_TRAFFIC, locks.held
    running = "SELECT 1 FROM chat_turns WHERE state NOT IN ('completed')"
    assert query(empty_url, running) == []


def revision(url: URL) -> str:
    (row,) = query(url, "SELECT version_num FROM chat_alembic_version")
    return str(row["version_num"])


def report(request: pytest.FixtureRequest, steps: list[tuple[str, int, int]], traffic: Traffic, locks: Locks) -> None:
    first = sorted(traffic.first_events)
    lines = [f"{turns:6} turns, {failures} failed: {step}" for step, turns, failures in steps]
    conversations, others = len(traffic.conversations), f"{traffic.files} files, {traffic.reads} reads"
    lines += [
        f"{traffic.turns:6} turns in {conversations} conversations, {traffic.left_out} left out; {others}",
        f"{first[len(first) // 2] * 1000:6.0f} ms to the first event in the median, {first[-1] * 1000:.0f} ms at most",
    ]
    lines += [f"{held * 1000:6.0f} ms {mode} of {table}" for (table, mode), held in sorted(locks.held.items())]
    print_lines(request, lines)


def print_lines(request: pytest.FixtureRequest, lines: list[str]) -> None:
    """Also of a test that passes."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    reporter.write_line("")
    for line in lines:
        reporter.write_line(line)
