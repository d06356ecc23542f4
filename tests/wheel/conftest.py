"""The package as people have it: a wheel, installed with the lock into an environment of its own by ``make wheel``."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment
from tests.support.processes import ChatClient, ChatProcess, ModelServer, clean_environment

TEAM = Path(__file__).parent / "team"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Path:
    """Where `make wheel` has made its environments."""
    return Path(request.config.getoption("--wheel")).resolve()


def without_checkout(**settings: str) -> dict[str, str]:
    variables = clean_environment(**settings)
    del variables["PYTHONPATH"]
    return variables


class InstalledProcess(ChatProcess):
    """``chatkit-postgres serve`` of the wheel, and all processes that it starts."""

    is_warm = False

    def __init__(self, installed: Path, directory: Path, *arguments: str, **settings: str) -> None:
        self.command = str(installed / "server" / "bin" / "chatkit-postgres")
        super().__init__(directory, *arguments, **settings)

    def _started(self, arguments: tuple[str, ...], settings: dict[str, str]) -> "subprocess.Popen[bytes]":
        del settings["PYTHONPATH"]
        return subprocess.Popen(
            # Without the module that the checkout would run.
            [self.command, *arguments[1:], "--port", str(self.port)],
            cwd=self.directory,
            env=settings,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """The parent and its workers, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._log.close()


class Team:
    """A team's folder, and servers started in it."""

    def __init__(self, installed: Path, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        self._installed = installed
        self._settings = settings

    def serve(self, *arguments: str, **more: str) -> InstalledProcess:
        process = InstalledProcess(self._installed, self.directory, *arguments, **self._settings | more)
        process.wait_until_ready()
        return process

    def run(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self._installed / "server" / "bin" / "chatkit-postgres"), *arguments],
            cwd=self.directory,
            env=without_checkout(**self._settings | more),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


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
