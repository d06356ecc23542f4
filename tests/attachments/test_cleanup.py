"""Bytes go after their row was marked, rows go after their bytes; whatever is killed in between is found again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chatkit.types import FileAttachment
from obstore.store import MemoryStore
from sqlalchemy import URL, text

from chatkit_postgres.attachments.cleanup import clean_up
from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import StorageUnavailable
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store import DatabaseStore
from tests.attachments.conftest import Place, started
from tests.conftest import execute, query
from tests.support.chat import Chat, add_message, create, demo_assistant, stored
from tests.support.files import S3Server, image_bytes, objects_in
from tests.support.processes import (
    ModelServer,
    done_items,
    eventually,
    http,
    message,
    run_cli,
    thread_id_of,
)
from tests.support.sql import sql_connection

FILE = image_bytes()


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


class Stubborn(ObjectStorage):
    """Some of its objects cannot be removed."""

    stuck: tuple[str, ...] = ()

    async def remove_all(self, key: str) -> int:
        if key in self.stuck:
            raise StorageUnavailable
        return await super().remove_all(key)


async def deleted_files(store: DatabaseStore, count: int) -> None:
    context = RequestContext("alice")
    for number in range(count):
        attachment = FileAttachment(id=f"atc_{number}", name="a.txt", mime_type="text/plain")
        key = f"00/{number}"
        await store.attachments.create(
            attachment, context, storage_key=key, declared_bytes=1, upload_seconds=900, max_unsent=500
        )
        await store.attachments.finish_upload(attachment, context, stored_bytes=1, sha256="0")
        await store.delete_attachment(attachment.id, context)


async def test_many_are_removed_at_once(store: DatabaseStore, database: Database) -> None:
    storage = Stubborn(MemoryStore())
    await deleted_files(store, 150)
    assert [await clean_up(database, storage, Metrics()) for _ in range(3)] == [100, 50, 0]


async def test_one_that_cannot_be_removed_holds_up_no_other(store: DatabaseStore, database: Database) -> None:
    storage = Stubborn(MemoryStore())
    storage.stuck = ("00/0", "00/1")
    await deleted_files(store, 12)
    assert await clean_up(database, storage, Metrics()) == 10
    storage.stuck = tuple(f"00/{number}" for number in range(12))
    await deleted_files_again(database)
    with pytest.raises(StorageUnavailable):
        await clean_up(database, storage, Metrics())


async def deleted_files_again(database: Database) -> None:
    async with sql_connection(database) as connection:
        await connection.execute(text("UPDATE chat_attachments SET stored_bytes = 1"))


async def test_a_file_that_is_sent_while_its_thread_is_deleted_goes_with_it(
    store: DatabaseStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is written and not yet committed when the thread is deleted."""
    chat = Chat(store, demo_assistant())
    thread_id = thread_id_of(await chat.events(create("Hello")))
    context = RequestContext("alice")
    attachment = FileAttachment(id="atc_1", name="a.txt", mime_type="text/plain")
    await store.attachments.create(
        attachment, context, storage_key="00/x", declared_bytes=1, upload_seconds=900, max_unsent=50
    )
    await store.attachments.finish_upload(attachment, context, stored_bytes=1, sha256="0")
    run, written, go_on = Database.run, asyncio.Event(), asyncio.Event()

    async def slowly(database: Database, owner: str, statement: Statement, **parameters: Any) -> Any:
        if statement.name != "append_item_with_attachments":
            return await run(database, owner, statement, **parameters)

        async def work(transaction: Transaction) -> Any:
            rows = await transaction.run(owner, statement, **parameters)
            written.set()
            await go_on.wait()
            return rows

        return await database.run_transaction("slowly", work)

    monkeypatch.setattr(Database, "run", slowly)
    request = add_message(thread_id, "Look")
    request.params.input.attachments = ["atc_1"]
    sending = asyncio.create_task(chat.events(request))
    await written.wait()
    deleting = asyncio.create_task(store.delete_thread(thread_id, context))
    await asyncio.sleep(0.2)
    go_on.set()
    await deleting
    await asyncio.gather(sending, return_exceptions=True)
    (row,) = await stored(store, "SELECT state FROM chat_attachments")
    assert row["state"] == "deleted"


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
    # A round that has been here, too.
    beside = user.announce(FILE, "b.png", "image/png")["id"]
    make_older(place, beside, "upload_expires_at", "25 hours")
    eventually(lambda: state_of(place, beside) == "deleted")
    make_older(place, beside, "deleted_at", "61 minutes")
    eventually(lambda: state_of(place, beside) is None)
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
            own = {"CHAT_ASSISTANT": "tests.support.crashing:build", "CRASH": crash, "CHAT_TURN_STALE_SECONDS": "2"}
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
        sent = message("Look") | {"attachments": [user.ready(FILE, "c.png", "image/png")]}
        thread_id = thread_id_of(user.client.events("threads.create", input=sent))
        waiting = user.ready(FILE, "d.png", "image/png")
        described = user.announce(FILE, "b.png", "image/png")
        bucket.stop()
        for answer in (user.send(described, FILE), user.content(attachment_id)):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert "retry-after" in answer.headers
        # The chat goes on without it; only what the message itself brings cannot be left out.
        assert user.client.create("Hello")
        assert answers_of(user.client.post_message(thread_id, "And now?"))
        with_file = user.client.events("threads.create", input=message("Look") | {"attachments": [waiting]})
        assert "error" in {event["type"] for event in with_file}
        bucket = S3Server(tmp_path / "s3", bucket.port).wait_until_ready()
        assert user.send(described, FILE).status_code == 200
        assert user.content(attachment_id).content == FILE
    finally:
        place.process.stop()
        bucket.stop()


def answers_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in done_items(events) if item["type"] == "assistant_message"]


def test_a_bucket_that_is_not_there_is_no_missing_file(
    tmp_path: Path, database_url: URL, model_server: ModelServer
) -> None:
    bucket = S3Server(tmp_path / "s3").wait_until_ready()
    elsewhere = bucket.settings() | {"CHAT_STORAGE_URL": "s3://nowhere/prefix"}
    place = started(tmp_path, database_url, model_server, None, **elsewhere)
    try:
        refused = place.user().direct(FILE, "a.png", "image/png")
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
        assert "storage_failed" in place.process.log
        assert (
            run_cli(tmp_path, "check", **elsewhere, CHAT_JWT_SECRET="s" * 40).stdout.count("storage        failed") == 1
        )
    finally:
        place.process.stop()
        bucket.stop()


def test_bytes_that_are_lost_are_said_so_in_the_log(local: Place) -> None:
    user = local.user()
    attachment_id = user.ready(b"Hello.")
    download = user.describe(attachment_id).json()["download_url"]
    for name in objects_of(local, attachment_id):
        (local.files / name).unlink()
    assert http.get(download).status_code == 404
    eventually(lambda: "object_missing" in local.process.log and attachment_id in local.process.log)


def test_uploads_and_removals_are_counted(local: Place) -> None:
    user = local.user()
    user.ready(FILE, "a.png", "image/png")
    user.direct(b"<html>", "a.png", "image/png")
    metrics = http.get(f"{local.process.base_url}/metrics").text
    for line in ('chatkit_uploads_total{outcome="stored"}', 'chatkit_uploads_total{outcome="file_refused"}'):
        assert line in metrics
    assert "chatkit_clean_up_last_success_timestamp_seconds" in metrics
