"""The package as people have it: a wheel, installed with the lock into an environment of its own by ``make wheel``."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment
from tests.support.installed import InstalledProcess, run_installed
from tests.support.processes import ChatClient, ChatProcess, ModelServer

TEAM = Path(__file__).parent / "team"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Path:
    """Where `make wheel` has made its environments."""
    return Path(request.config.getoption("--wheel")).resolve()


class Team:
    """A team's folder, and servers started in it."""

    def __init__(self, installed: Path, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        self._installed = installed
        self._settings = settings

    def serve(self, *arguments: str, **more: str) -> InstalledProcess:
        process = InstalledProcess(self._installed / "server", self.directory, *arguments, **self._settings | more)
        process.wait_until_ready()
        return process

    def run(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        settings = self._settings | more
        return run_installed(self._installed / "server", self.directory, *arguments, **settings)


def client_of(process: ChatProcess, user: str) -> ChatClient:
    return ChatClient(process.base_url, mint(SECRET, user, seconds=3600))


@pytest.fixture
def team(installed: Path, tmp_path: Path, database_url: URL, model_server: ModelServer) -> Team:
    directory = tmp_path / "team"
    shutil.copytree(TEAM, directory, ignore=shutil.ignore_patterns("__pycache__"))
    own: dict[str, Any] = {
        "CHAT_ASSISTANT": "app.server:TeamServer",
        "CHAT_CONTEXT_HEADERS": "X-Tenant",
        "CHAT_TURN_STALE_SECONDS": "2",
    }
    return Team(installed, directory, environment(database_url, model_server, **own))
