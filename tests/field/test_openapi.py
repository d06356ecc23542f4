"""Schemathesis reads the OpenAPI document and asks what it can think of: no answer may be another one than it says."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import ChatProcess, ModelServer, http


@pytest.fixture(scope="module")
def binaries(pytestconfig: pytest.Config) -> Path:
    return Path(pytestconfig.getoption("--field")).absolute() / "schemathesis" / "bin"


@pytest.fixture
def server(tmp_path: Path, shared_database: URL, model_server: ModelServer) -> Iterator[ChatProcess]:
    settings = environment(shared_database, model_server) | {
        "CHAT_API_DOCS": "true",
        "CHAT_STAFF_CLAIM": "role:support",
    }
    process = ChatProcess(tmp_path, **settings)
    yield process.wait_until_ready()
    assert process.stop() == 0


def test_no_answer_is_another_one_than_the_document_says(server: ChatProcess, binaries: Path, tmp_path: Path) -> None:
    token = mint(SECRET, new_user(), seconds=3600, more={"role": "support"})
    document = f"{server.base_url}/openapi.json"
    command = [str(binaries / "st"), "run", document, "--header", f"Authorization: Bearer {token}"]
    # What a schema cannot say, such as which texts are too long, is refused although it fits.
    command += ["--max-examples", "15", "--seed", "1", "--exclude-checks", "positive_data_acceptance", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + server.log[-2000:]
    assert "Tested: 21" in done.stdout


def test_the_document_is_one_of_openapi(server: ChatProcess, binaries: Path, tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(http.get(f"{server.base_url}/openapi.json").json()))
    command = [str(binaries / "openapi-spec-validator"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
