"""Faults at random moments, each several times, over real sockets and processes. `make faults` makes it twenty."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.faults.harness import Assistants, Replica, replica
from tests.support.processes import ModelServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", range(metafunc.config.getoption("--fault-runs")))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How often each fault happened, and how many items had been acknowledged in all."""
    times: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "acknowledged":
                fault = report.nodeid.partition("::")[2].partition("[")[0]
                times[fault] += 1
                items[fault] += value
    for fault in sorted(times):
        terminalreporter.write_line(f"{times[fault]:4} times, {items[fault]:6} items acknowledged and kept: {fault}")


@pytest.fixture(scope="session", autouse=True)
def _assistant(request: pytest.FixtureRequest) -> None:
    Assistants.named = request.config.getoption("--assistant") or Assistants.named


@pytest.fixture
def moment(run: int, request: pytest.FixtureRequest) -> random.Random:
    """Random moments that a failing test's name brings back."""
    return random.Random(f"{request.node.name}")


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Replica]:
    # Impatient with dead processes, so that tests need not wait for half a minute.
    yield from replica(tmp_path_factory.mktemp("first"), shared_database, model_server, CHAT_TURN_STALE_SECONDS="6")


@pytest.fixture(scope="module")
def second(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Replica]:
    yield from replica(tmp_path_factory.mktemp("second"), shared_database, model_server)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path
