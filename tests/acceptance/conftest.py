"""Real servers for whole modules; each test takes users of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ChatProcess


@pytest.fixture(scope="session")
def embedded_settings(postgres_bin: Path | None) -> dict[str, str]:
    return {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, embedded_settings: dict[str, str]) -> Iterator[ChatProcess]:
    """What `make run` starts: embedded database, development mode, demo model."""
    server = ChatProcess(tmp_path_factory.mktemp("demo"), **embedded_settings)
    yield server.wait_until_ready()
    assert server.stop() == 0
