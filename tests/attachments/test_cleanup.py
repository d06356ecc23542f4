"""Bytes go after their row was marked, rows go after their bytes; whatever is killed in between is found again."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from tests.attachments.conftest import Place, started
from tests.conftest import execute, query
from tests.support.files import S3Server, objects_in, picture
from tests.support.processes import ModelServer, eventually, http, message, thread_id_of

FILE = picture()


def state_of(place: Place, attachment_id: str) -> str | None:
    found = query(place.database, f"SELECT state FROM chat_attachments WHERE attachment_id = '{attachment_id}'")
    return found[0]["state"] if found else None


def objects_of(place: Place, attachment_id: str) -> set[str]:
    (row,) = query(place.database, f"SELECT storage_key FROM chat_attachments WHERE attachment_id = '{attachment_id}'")
    return {name for name in objects_in(place.files) if name.startswith(row["storage_key"])}


def make_older(place: Place, attachment_id: str, column: str, interval: str) -> None:
    statement = f"UPDATE chat_attachments SET {column} = now() - interval '{interval}'"
    execute(place.database, f"{statement} WHERE attachment_id = '{attachment_id}'")


def test_a_deleted_file_loses_its_bytes_and_then_its_row(place: Place) -> None:
    user = place.user()
    attachment_id = user.ready(FILE, "a.png", "image/png")
    assert len(objects_of(place, attachment_id)) == 2
    user.client.call("attachments.delete", attachment_id=attachment_id)
    eventually(lambda: objects_of(place, attachment_id) == set(), what="the bytes go")
    # The row stays while an upload could still be on its way.
    assert state_of(place, attachment_id) == "deleted"
    make_older(place, attachment_id, "deleted_at", "61 minutes")
    eventually(lambda: state_of(place, attachment_id) is None, what="the row goes")


def test_the_files_of_a_deleted_thread_go(place: Place) -> None:
    user = place.user()
    attachment_id = user.ready(FILE, "a.png", "image/png")
    sent = message("Look") | {"attachments": [attachment_id]}
    thread_id = thread_id_of(user.client.events("threads.create", input=sent))
    user.client.call("threads.delete", thread_id=thread_id)
    eventually(lambda: objects_of(place, attachment_id) == set(), what="the bytes go")


@pytest.mark.parametrize(
    ("column", "uploads"), [("upload_expires_at", False), ("uploaded_at", True)], ids=["never uploaded", "never sent"]
)
def test_what_comes_to_nothing_goes(place: Place, column: str, uploads: bool) -> None:
    user = place.user()
    described = user.announce(FILE, "a.png", "image/png")
    if uploads:
        assert user.send(described, FILE).status_code == 200
    make_older(place, described["id"], column, "25 hours")
    eventually(lambda: state_of(place, described["id"]) == "deleted", what="it is marked")
    make_older(place, described["id"], "deleted_at", "61 minutes")
    eventually(lambda: state_of(place, described["id"]) is None, what="the row goes")


def test_what_was_sent_stays_for_years(place: Place) -> None:
    user = place.user()
    attachment_id = user.ready(FILE, "a.png", "image/png")
    user.client.events("threads.create", input=message("Look") | {"attachments": [attachment_id]})
    for column in ("uploaded_at", "upload_expires_at", "created_at"):
        make_older(place, attachment_id, column, "3 years")
    time.sleep(2.5)
    assert state_of(place, attachment_id) == "ready"
    assert len(objects_of(place, attachment_id)) == 2


# Where a process is killed, and with which request: see tests/support/crashing.py.
STEPS = ["announced", "original stored", "preview stored", "ready"]
REMOVAL = ["marked", "bytes removed", "row to go"]


@pytest.mark.parametrize("storage", ["directory", "bucket"])
class TestCrashes:
    """kill -9 between each two steps; the next process finds what is left."""

    @pytest.fixture
    def begin(
        self,
        storage: str,
        tmp_path: Path,
        database_url: URL,
        model_server: ModelServer,
        request: pytest.FixtureRequest,
    ) -> Any:
        bucket = S3Server(tmp_path / "s3").wait_until_ready() if storage == "bucket" else None
        places: list[Place] = []

        def start(crash: str = "") -> Place:
            own = {"CHAT_ASSISTANT": "tests.support.crashing:build", "CRASH": crash}
            places.append(started(tmp_path, database_url, model_server, bucket, **own))
            return places[-1]

        yield start
        for place in places:
            place.process.stop()
        if bucket is not None:
            bucket.stop()

    @staticmethod
    def dies(place: Place, act: Callable[[], object]) -> None:
        with suppress(httpx2.TransportError):
            act()
        assert place.process.process.wait(20) == -9

    @pytest.mark.parametrize("step", STEPS)
    def test_an_upload_that_was_killed_can_be_made_again_and_leaves_nothing(self, begin: Any, step: str) -> None:
        place: Place = begin(step)
        user = place.user()
        described = user.announce(FILE, "a.png", "image/png")
        self.dies(place, lambda: user.send(described, FILE))
        after: Place = begin()
        url = described["upload_descriptor"]["url"].replace(str(place.process.port), str(after.process.port))
        again = http.put(url, content=FILE)
        assert again.status_code == (409 if step == "ready" else 200), again.text
        assert state_of(after, described["id"]) == "ready"
        assert len(objects_of(after, described["id"])) == 2
        make_older(after, described["id"], "uploaded_at", "25 hours")
        eventually(lambda: objects_in(after.files) == set(), what="nothing is left")

    @pytest.mark.parametrize("step", STEPS[1:3])
    def test_an_upload_that_was_killed_and_never_made_again_leaves_nothing(self, begin: Any, step: str) -> None:
        place: Place = begin(step)
        user = place.user()
        described = user.announce(FILE, "a.png", "image/png")
        self.dies(place, lambda: user.send(described, FILE))
        after: Place = begin()
        assert objects_of(after, described["id"]) != set()
        make_older(after, described["id"], "upload_expires_at", "25 hours")
        eventually(lambda: state_of(after, described["id"]) == "deleted", what="it is marked")
        make_older(after, described["id"], "deleted_at", "61 minutes")
        eventually(lambda: state_of(after, described["id"]) is None, what="the row goes")
        assert objects_in(after.files) == set()

    @pytest.mark.parametrize("step", REMOVAL)
    def test_a_removal_that_was_killed_goes_on(self, begin: Any, step: str) -> None:
        place: Place = begin(step)
        user = place.user()
        attachment_id = user.ready(FILE, "a.png", "image/png")

        def remove() -> None:
            user.client.call("attachments.delete", attachment_id=attachment_id)
            if step == "row to go":
                eventually(lambda: objects_of(place, attachment_id) == set())
                make_older(place, attachment_id, "deleted_at", "61 minutes")

        self.dies(place, remove)
        after: Place = begin()
        eventually(lambda: objects_of(after, attachment_id) == set(), what="the bytes go")
        make_older(after, attachment_id, "deleted_at", "61 minutes")
        eventually(lambda: state_of(after, attachment_id) is None, what="the row goes")

    def test_a_message_that_was_killed_sent_its_file_or_did_not(self, begin: Any) -> None:
        """They are one statement: both of them, or neither."""
        place: Place = begin("sent")
        user = place.user()
        attachment_id = user.ready(FILE, "a.png", "image/png")
        sent = message("Look") | {"attachments": [attachment_id]}
        self.dies(place, lambda: user.client.post("threads.create", input=sent))
        after: Place = begin()
        threads = query(after.database, "SELECT session_id FROM chat_sessions")
        files = query(after.database, "SELECT session_id FROM chat_attachments")
        assert files == threads
        assert len(threads) == 1


def test_a_storage_that_is_away_is_a_clear_answer_and_comes_back(
    tmp_path: Path, database_url: URL, model_server: ModelServer
) -> None:
    bucket = S3Server(tmp_path / "s3").wait_until_ready()
    place = started(tmp_path, database_url, model_server, bucket)
    try:
        user = place.user()
        attachment_id = user.ready(FILE, "a.png", "image/png")
        described = user.announce(FILE, "b.png", "image/png")
        bucket.stop()
        for answer in (user.send(described, FILE), user.content(attachment_id)):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert "retry-after" in answer.headers
        # The chat goes on without it.
        assert user.client.create("Hello")
        bucket = S3Server(tmp_path / "s3", bucket.port).wait_until_ready()
        assert user.send(described, FILE).status_code == 200
        assert user.content(attachment_id).content == FILE
    finally:
        place.process.stop()
        bucket.stop()
