"""A server for each storage: a directory, and a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.conftest import migrated_database
from tests.faults.harness import SECRET, environment, new_user
from tests.support.files import S3Server, Uploader
from tests.support.processes import ChatClient, ChatProcess, ModelServer

MAX_UNSENT = 20
LOCAL = {"CHAT_MAX_IMAGE_PIXELS": "1000000", "CHAT_MAX_UNSENT_ATTACHMENTS": str(MAX_UNSENT)}


@dataclass
class Place:
    """A server, and where its files lie."""

    process: ChatProcess
    files: Path
    database: URL
    model: ModelServer

    def user(self) -> Uploader:
        return Uploader(self.client(new_user()))

    def client(self, name: str) -> ChatClient:
        return ChatClient(self.process.base_url, mint(SECRET, name, seconds=3600))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server.wait_until_ready()
    server.stop()


def started(directory: Path, database: URL, model: ModelServer, bucket: S3Server | None = None, **more: str) -> Place:
    own = {"CHAT_TURN_STALE_SECONDS": "4", **more} | (bucket.settings() if bucket is not None else {})
    process = ChatProcess(directory, **environment(database, model) | own).wait_until_ready()
    files = bucket.bucket / "some" / "prefix" if bucket is not None else directory / ".data" / "attachments"
    return Place(process, files, database, model)


@pytest.fixture(scope="module", params=["directory", "bucket"])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_server: ModelServer,
) -> Iterator[Place]:
    """The same tests for both, in a database of its own: a server removes what is deleted from its own storage."""
    bucket = request.getfixturevalue("s3_server") if request.param == "bucket" else None
    with migrated_database(request) as database:
        made = started(tmp_path_factory.mktemp("files"), database, model_server, bucket)
        yield made
        assert made.process.stop() == 0


@pytest.fixture(scope="module")
def local(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer
) -> Iterator[Place]:
    """For what does not depend on the storage."""
    with migrated_database(request) as database:
        made = started(tmp_path_factory.mktemp("local"), database, model_server, None, **LOCAL)
        yield made
        assert made.process.stop() == 0
