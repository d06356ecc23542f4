"""A user's data is taken along: equal after the way there and back, and whole after any interruption."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.cli import cli
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.partials import Checkpoint, LogEntry, PartialItem
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.user_data.archive import ArchiveReader, BadArchiveError
from chatkit_postgres.user_data.export import Export
from chatkit_postgres.user_data.importing import Import
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user
from tests.isolation.user_data import FILE, FILE_KEY, UserData, store_user_data
from tests.support.files import Uploader, image_bytes, pdf
from tests.support.items import assistant_message, thread, user_message
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    done_items,
    http,
    message,
    thread_id_of,
)
from tests.support.random_threads import random_thread

FILES = {"a.txt": (b"Hello. " * 50_000, "text/plain"), "b.png": (image_bytes(), "image/png")}


@pytest.fixture
async def other(database_url: URL) -> AsyncIterator[DatabaseStore]:
    """An empty installation."""
    store = DatabaseStore(Database(database_url))
    yield store
    await store.close()


@pytest.fixture
async def full(shared_database: URL) -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore(Database(shared_database))
    yield store
    await store.close()


def storage_in(directory: Path) -> ObjectStorage:
    return ObjectStorage.in_directory(directory)


async def exported(store: DatabaseStore, storage: ObjectStorage, user: str, *, with_hidden: bool = True) -> bytes:
    export = Export(store.database, storage, user, with_hidden=with_hidden)
    return b"".join([piece.data async for piece in export.pieces()])


async def imported(store: DatabaseStore, storage: ObjectStorage, user: str, archive: bytes, path: Path) -> Import:
    path.write_bytes(archive)  # noqa: ASYNC240 - a test has the loop for itself
    importing, reader = Import(store.database, storage, user), ArchiveReader(path)
    async for _ in importing.run(reader):
        pass
    reader.close()
    return importing


def records_of(archive: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        return [json.loads(line) for line in read.read("data.jsonl").splitlines()]


@pytest.mark.one_postgres  # Two databases, and there is one cluster.
@pytest.mark.parametrize("seed", range(5))
async def test_an_export_comes_back_equal(full: DatabaseStore, other: DatabaseStore, tmp_path: Path, seed: int) -> None:
    rng, user = random.Random(seed), new_user()
    here, there = storage_in(tmp_path / "here"), storage_in(tmp_path / "there")
    for _ in range(6):
        await random_thread(full, user, rng)
    await store_user_data(full, UserData(user, "MARK"))
    # The bytes of its file.
    await here.put(FILE_KEY, FILE, content_type="text/plain", disposition="attachment")
    first = await exported(full, here, user)
    kinds = {record["type"] for record in records_of(first)}
    assert kinds == {"export", "user", "thread", "item", "feedback", "turn", "tool_call", "approval", "attachment"}
    done = await imported(other, there, user, first, tmp_path / "a.zip")
    assert not done.report.known - done.report.known.__class__(user=1)
    assert await exported(other, there, user) == first
    # Once more changes nothing.
    again = await imported(other, there, user, first, tmp_path / "a.zip")
    assert sum(again.report.imported.values()) == 0
    assert await exported(other, there, user) == first
    # What was imported is found, under its thread.
    hits = await other.search.search("mark", RequestContext(user))
    assert {hit.item_id for hit in hits.data} >= {None}
    assert len(hits.data) >= 5


async def test_it_can_be_imported_for_somebody_else_beside_the_first(full: DatabaseStore, tmp_path: Path) -> None:
    user, heir = new_user(), new_user()
    storage = storage_in(tmp_path / "files")
    await store_user_data(full, UserData(user, "MARK"))
    # The bytes of its file.
    await storage.put(FILE_KEY, FILE, content_type="text/plain", disposition="attachment")
    first = await exported(full, storage, user)
    await imported(full, storage, heir, first, tmp_path / "a.zip")
    copied = await exported(full, storage, heir)
    assert [record for record in records_of(copied) if record["type"] != "export"] == [
        record for record in records_of(first) if record["type"] != "export"
    ]
    assert await exported(full, storage, user) == first


async def test_what_is_running_is_exported_as_interrupted_with_its_text_so_far(
    full: DatabaseStore, other: DatabaseStore, tmp_path: Path
) -> None:
    user = new_user()
    context = RequestContext(user, session=WriteSession("threads.add_user_message"))
    await full.save_thread(thread("t"), RequestContext(user))
    await full.add_thread_item("t", user_message("t", "m"), context)
    await full.partials.save_items([PartialItem(context, assistant_message("t", "a", "Once"))])
    entry = LogEntry("a", 1, 0, 4, " upon")
    await full.partials.checkpoint([Checkpoint(context, [entry])], with_heartbeat=False)
    storage = storage_in(tmp_path / "files")
    archive = await exported(full, storage, user)
    await imported(other, storage_in(tmp_path / "there"), user, archive, tmp_path / "a.zip")
    page = await other.load_thread_items("t", None, 10, "asc", RequestContext(user))
    assert [getattr(item, "content", [None])[0].text for item in page.data] == ["Hello", "Once upon"]
    (turn,) = [record for record in records_of(archive) if record["type"] == "turn"]
    assert (turn["state"], turn["error_code"]) == ("interrupted", "interrupted")
    # And the imported thread takes the next message.
    again = RequestContext(user, session=WriteSession("threads.add_user_message"))
    await other.add_thread_item("t", user_message("t", "next"), again)


async def test_a_thread_that_has_grown_is_imported_again(
    full: DatabaseStore, other: DatabaseStore, tmp_path: Path
) -> None:
    user = new_user()
    storage = storage_in(tmp_path / "files")
    await full.save_thread(thread("t"), RequestContext(user))
    for number in range(3):
        await full.add_thread_item("t", user_message("t", f"m{number}"), RequestContext(user))
        await imported(other, storage, user, await exported(full, storage, user), tmp_path / "a.zip")
    await other.add_thread_item("t", user_message("t", "mine"), RequestContext(user))
    page = await other.load_thread_items("t", None, 10, "asc", RequestContext(user))
    assert [item.id for item in page.data] == ["m0", "m1", "m2", "mine"]


async def test_who_exports_their_own_gets_what_a_client_may_receive(full: DatabaseStore, tmp_path: Path) -> None:
    user, storage = new_user(), storage_in(tmp_path / "files")
    await store_user_data(full, UserData(user, "MARK"))
    mine = records_of(await exported(full, storage, user, with_hidden=False))
    whole = records_of(await exported(full, storage, user))
    assert {record["type"] for record in whole} - {record["type"] for record in mine} == {"approval"}
    hidden = [record["item_type"] for record in whole if record["type"] == "item" and record not in mine]
    assert hidden == ["hidden_context_item"]
    assert {str(record["metadata"]) for record in mine if record["type"] == "thread"} == {"{}"}


def plain(thread_id: str, *item_ids: str, begins: bool = True) -> bytes:
    """JSON Lines as somebody else writes them."""
    common = {"thread_id": thread_id, "created_at": "2026-01-02T03:04:05Z"}
    records = [{"type": "thread", **common}] if begins else []
    for item_id in item_ids:
        item = json.loads(user_message(thread_id, item_id, f"says {item_id}").model_dump_json())
        records.append({"type": "item", "thread_id": thread_id, "item": item})
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


async def test_more_items_of_a_thread_come_after_those_that_are_there(other: DatabaseStore, tmp_path: Path) -> None:
    storage, alice = storage_in(tmp_path / "files"), "alice"
    first, second = plain("t", "m1", "m2"), plain("t", "m2", "m3")
    await imported(other, storage, alice, first, tmp_path / "a")
    await other.add_thread_item("t", user_message("t", "mine"), RequestContext(alice))
    for _ in range(2):
        done = await imported(other, storage, alice, second, tmp_path / "a")
        assert not +done.report.left_out
    page = await other.load_thread_items("t", None, 10, "asc", RequestContext(alice))
    assert [item.id for item in page.data] == ["m1", "m2", "mine", "m3"]


async def test_what_cannot_be_imported_is_told(other: DatabaseStore, tmp_path: Path) -> None:
    storage = storage_in(tmp_path / "files")
    done = await imported(other, storage, "alice", plain("nowhere", "m1", "m2", begins=False), tmp_path / "a")
    assert (done.report.left_out["item"], done.report.known["item"]) == (2, 0)


async def test_what_comes_before_a_bad_line_is_imported(other: DatabaseStore, tmp_path: Path) -> None:
    with pytest.raises(BadArchiveError, match="line 4: "):
        await imported(
            other, storage_in(tmp_path / "f"), "alice", plain("t", "m1", "m2") + b'{"type": "no"}', tmp_path / "a"
        )
    page = await other.load_thread_items("t", None, 10, "asc", RequestContext("alice"))
    assert [item.id for item in page.data] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"sha256": "0" * 64}, "sha256"), ({"stored_bytes": 1}, "stored_bytes"), ({"sha256": "../../x"}, "sha256")],
)
async def test_bytes_that_are_not_those_of_their_record_are_not_imported(
    other: DatabaseStore, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    data, storage = b"the bytes", storage_in(tmp_path / "files")
    record = {
        "type": "attachment",
        "attachment_id": "atc_1",
        "state": "ready",
        "attachment": {"type": "file", "id": "atc_1", "name": "a.txt", "mime_type": "text/plain"},
        "stored_bytes": len(data),
        "content_type": "text/plain",
        "sha256": hashlib.sha256(data).hexdigest(),
        "created_at": "2026-01-02T03:04:05Z",
        "file": "files/1",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("data.jsonl", json.dumps(record | changes))
        archive.writestr("files/1", data)
    with pytest.raises(BadArchiveError, match=problem):
        await imported(other, storage, "alice", made.getvalue(), tmp_path / "a")
    assert await storage.names("") == []


async def test_a_damaged_archive_is_told(full: DatabaseStore, other: DatabaseStore, tmp_path: Path) -> None:
    user, storage = new_user(), storage_in(tmp_path / "files")
    await store_user_data(full, UserData(user, "MARK"))
    whole = await exported(full, storage, user)
    for place in range(60, len(whole) - 400, 300):
        damaged = whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 20]) + whole[place + 20 :]
        with pytest.raises(BadArchiveError):
            await imported(other, storage, user, damaged, tmp_path / "a")


async def test_a_large_export_is_made_in_small_pieces(full: DatabaseStore, tmp_path: Path) -> None:
    user, storage = new_user(), storage_in(tmp_path / "files")
    dice = random.Random(1)
    for name in ("t", "u"):
        await full.save_thread(thread(name), RequestContext(user))
        for number in range(60):
            text = dice.randbytes(150_000).hex()
            await full.add_thread_item(name, user_message(name, f"m{number}", text), RequestContext(user))
    export = Export(full.database, storage, user, with_hidden=True)
    sizes = [len(piece.data) async for piece in export.pieces()]
    assert sum(sizes) > 15_000_000
    assert max(sizes) < 5_000_000


NO_EXPORTS = [
    (b"PK not a zip", "is not a whole ZIP file"),
    (b"no json", "line 1 is no JSON"),
    (b'["a list"]', "line 1 is no record"),
    (b'{"type": "export", "format": "other"}', "line 1: this is no export of chatkit-postgres"),
    (b'{"type": "export", "format": "chatkit-postgres", "version": 2}', "line 1: version 2 of the format"),
    (b'{"type": "wish"}', "line 1: there is no record of the type 'wish'"),
    (b'{"type": "thread", "thread_id": "t"}', "line 1: created_at is missing"),
    (b'{"type": "thread", "thread_id": "t", "created_at": "soon"}', "line 1: a value does not fit"),
    (b'{"type": "item", "thread_id": "t", "item": {"type": "no"}}', "line 1: "),
    (b"[" * 100_000, "line 1 is no JSON"),
    (b'{"type": "thread", "thread_id": "t", "created_at": "2026-01-01", "next_position": 9e18}', "too large"),
    (2 * b'{"type": "thread", "thread_id": "t", "created_at": "2026-01-01"}\n', "lines 1 to 2: "),
]


class TestCommands:
    @pytest.fixture
    def served(
        self, tmp_path: Path, shared_database: URL, model_server: ModelServer
    ) -> Iterator[tuple[ChatProcess, dict[str, str]]]:
        settings = environment(shared_database, model_server)
        directory = tmp_path / "here"
        directory.mkdir()
        process = ChatProcess(directory, **settings).wait_until_ready()
        yield process, settings
        assert process.stop() == 0

    @staticmethod
    def command(directory: Path, settings: dict[str, str], *arguments: str) -> list[Any]:
        directory.mkdir(exist_ok=True)
        return [
            [sys.executable, "-m", "chatkit_postgres", "user", *arguments],
            directory,
            clean_environment(**settings),
        ]

    def run(self, directory: Path, settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        command, cwd, environ = self.command(directory, settings, *arguments)
        environ["PYTHONPATH"] = str(ROOT)
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60)

    @pytest.mark.one_postgres
    def test_files_and_all_are_taken_along_and_survive_kill_9(
        self, served: tuple[ChatProcess, dict[str, str]], tmp_path: Path, database_url: URL, model_server: ModelServer
    ) -> None:
        process, settings = served
        user = new_user()
        client = ChatClient(process.base_url, mint(SECRET, user, seconds=600))
        up = Uploader(client)
        ids = [up.ready(data, name, kind) for name, (data, kind) in FILES.items()]
        ids.append(up.ready(pdf("Some text"), "c.pdf", "application/pdf"))
        events = client.events("threads.create", input=message("Look") | {"attachments": ids})
        thread_id = thread_id_of(events)
        for number in range(30):
            client.post_message(thread_id, f"message {number} " + "word " * 400)
        here = tmp_path / "here"
        done = self.run(here, settings, "export", user, "--output", "me.zip")
        assert (done.returncode, done.stdout) == (0, f"me.zip: everything of {user}.\n"), done.stderr
        assert self.run(here, settings, "export", user, "--output", "me.zip").returncode == 1
        archive = (here / "me.zip").read_bytes()
        given = http.get(f"{process.base_url}/api/export", headers=client.headers)
        assert given.content == archive
        assert given.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(archive)) as read:
            assert read.testzip() is None
            assert {name.partition(".")[2] for name in read.namelist()} == {"jsonl", "", "preview", "text"}
            assert FILES["a.txt"][0] in [read.read(name) for name in read.namelist()]
        there = tmp_path / "there"
        moved = settings | environment(database_url, model_server)
        dice = random.Random(1)
        for _ in range(8):
            command, cwd, environ = self.command(there, moved, "import", str(here / "me.zip"))
            killed = subprocess.Popen(command, cwd=cwd, env=environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
            time.sleep(dice.uniform(0.3, 1.6))
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate()
        done = self.run(there, moved, "import", str(here / "me.zip"))
        assert done.returncode == 0, done.stderr
        assert self.run(there, moved, "export", user, "--output", "again.zip").returncode == 0
        assert (there / "again.zip").read_bytes() == archive
        new = ChatProcess(there, **moved).wait_until_ready()
        moved_client = ChatClient(new.base_url, client.headers["Authorization"].removeprefix("Bearer "))
        assert moved_client.items(thread_id)[:2] == done_items(events)[:2] or len(moved_client.items(thread_id)) > 60
        for attachment_id, (data, _) in zip(ids[:2], FILES.values(), strict=True):
            assert Uploader(moved_client).content(attachment_id).content == data
        moved_client.post_message(thread_id, "And on it goes")
        assert new.stop() == 0
        # Nothing is left of the attempts that were killed.
        keys = {row["key"] for row in query(database_url, "SELECT storage_key AS key FROM chat_attachments")}
        stored = {str(path.parent.relative_to(there / ".data" / "attachments")) for path in _files(there)}
        assert stored == keys

    def test_what_is_no_export_is_refused_by_its_line(
        self, tmp_path: Path, database_url: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "DATABASE_URL": database_url.render_as_string(hide_password=False),
            "CHAT_JWT_SECRET": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        for content, sentence in NO_EXPORTS:
            (tmp_path / "bad").write_bytes(content)
            for wanted, arguments in ((sentence, ["--as", "alice"]), ("", [])):
                done = CliRunner().invoke(cli, ["user", "import", "bad", *arguments])
                assert done.exit_code == 1, content[:50]
                assert wanted in done.output, content[:50]
                assert isinstance(done.exception, SystemExit), content[:50]

    def test_an_export_without_its_bytes_is_told(
        self, served: tuple[ChatProcess, dict[str, str]], tmp_path: Path
    ) -> None:
        process, settings = served
        user = new_user()
        # Of a user who has not said anything yet.
        Uploader(ChatClient(process.base_url, mint(SECRET, user, seconds=600))).ready(b"Hello.", "lost.txt")
        # As in another directory than the server's.
        done = self.run(tmp_path / "elsewhere", settings, "export", user, "--output", "me.zip")
        assert done.returncode == 1
        assert "lost.txt: its bytes are not in the storage" in done.stderr
        done = self.run(tmp_path / "elsewhere", settings, "import", "me.zip", "--as", new_user())
        assert done.returncode == 1
        assert "lost.txt: its bytes are not in me.zip" in done.stderr
        assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.suffix != ""] == ["me.zip"]

    def test_who_is_unknown_has_no_export(self, served: tuple[ChatProcess, dict[str, str]], tmp_path: Path) -> None:
        process, settings = served
        done = self.run(tmp_path, settings, "export", "nobody", "--output", "me.zip")
        assert (done.returncode, done.stderr) == (1, "user: there is no user nobody\n")
        assert not (tmp_path / "me.zip").exists()
        headers = {"Authorization": f"Bearer {mint(SECRET, new_user(), seconds=600)}"}
        assert http.get(f"{process.base_url}/api/export", headers=headers).status_code == 404


def _files(directory: Path) -> Iterator[Path]:
    yield from (path for path in (directory / ".data" / "attachments").rglob("*") if path.is_file())
