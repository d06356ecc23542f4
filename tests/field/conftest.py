"""Model servers that none of us wrote, each in an environment of its own: ``make field`` installs and starts them."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import ModelServer, free_port, http

HERE = Path(__file__).parent
START_SECONDS = 90


class FieldServer:
    """The address that our server is given, and a key for it."""

    def __init__(self, url: str, key: str = "none") -> None:
        self.url = url
        self.key = key


@contextmanager
def started(directory: Path, ready_path: str, *command: str | Path, **environment: str) -> Iterator[str]:
    """The server's address, once it answers at the path. ``{port}`` in the command is its port."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = directory / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part).replace("{port}", str(port)) for part in command],
            env={**os.environ, **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(address + ready_path):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return http.get(url).status_code == 200
    return False


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Path:
    """Where ``make field`` has put them."""
    directory: Path = request.config.getoption("--field")
    return directory.resolve()


@pytest.fixture(scope="session")
def scripted() -> Iterator[ModelServer]:
    """Behind LiteLLM."""
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def litellm(installed: Path, scripted: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FieldServer]:
    key = f"sk-{secrets.token_hex(32)}"
    own = {"LITELLM_MASTER_KEY": key, "SCRIPTED_URL": scripted.url, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    own |= {"LITELLM_LOG": "ERROR", "DISABLE_ADMIN_UI": "True", "NO_DOCS": "True", "NO_REDOC": "True"}
    command = (installed / "litellm/bin/litellm", "--config", HERE / "litellm.yaml", "--host", "127.0.0.1")
    more = ("--port", "{port}", "--telemetry", "False")
    with started(tmp_path_factory.mktemp("litellm"), "/health/readiness", *command, *more, **own) as address:
        yield FieldServer(f"{address}/v1", key)


@pytest.fixture(scope="session")
def llmock(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FieldServer]:
    command = (installed / "llmock/bin/llmock", "serve", "--host", "127.0.0.1", "--port", "{port}")
    more = ("--response-style", "echo", "--log-level", "warning")
    with started(tmp_path_factory.mktemp("llmock"), "/health", *command, *more) as address:
        yield FieldServer(f"{address}/v1")


@pytest.fixture(scope="session")
def aimock(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FieldServer]:
    directory = tmp_path_factory.mktemp("aimock")
    (directory / "fixtures").mkdir()
    shutil.copy(HERE / "aimock.json", directory / "fixtures")
    settings = {"host": "127.0.0.1", "llm": {"fixtures": str(directory / "fixtures"), "chunkSize": 8, "latency": 1}}
    (directory / "config.json").write_text(json.dumps(settings))
    script = installed / "aimock/node_modules/@copilotkit/aimock/dist/aimock-cli.js"
    command = ("node", script, "--config", directory / "config.json", "--host", "127.0.0.1", "--port", "{port}")
    with started(directory, "/ready", *command) as address:
        yield FieldServer(f"{address}/v1")
