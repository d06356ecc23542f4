"""An erased user is gone, from every table, file and line of the log, also after a backup was restored."""

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import FileAttachment
from sqlalchemy import URL, text

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.attachments.storage import NoStorage
from chatkit_postgres.auth.disabled_users import KNOWN_FOR_SECONDS
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.db.binaries import find_binaries
from chatkit_postgres.db.tables import metadata
from chatkit_postgres.errors import StorageUnavailable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.sql.erasure import KEYS
from chatkit_postgres.user_data.audit import Audit, Look
from chatkit_postgres.user_data.erasure import REFUSED_AFTER_SECONDS, Erasure, Receipt
from chatkit_postgres.user_data.hashes import Hashes
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user, script
from tests.isolation.user_data import UserData, store_user_data
from tests.support.files import Uploader
from tests.support.items import thread, user_message
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    eventually,
    http,
    message,
    thread_id_of,
)
from tests.support.random_threads import random_thread
from tests.support.sql import sql_connection

KEY = "k" * 40
OWNED = [name for name, table in metadata.tables.items() if "user_id" in table.columns]


@pytest.fixture
async def full(database_url: URL) -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore(Database(database_url))
    yield store
    await store.close()


@pytest.fixture
def storage(tmp_path: Path) -> ObjectStorage:
    return ObjectStorage.in_directory(tmp_path / "files")


def quick(store: DatabaseStore, storage: ObjectStorage | NoStorage) -> Erasure:
    return Erasure(store.database, storage, KEY, wait_seconds=0, max_wait_seconds=0)


def dump_of(database: URL) -> bytes:
    """What a backup has."""
    binaries = find_binaries(None)
    assert binaries is not None
    command = [str(binaries.directory / "pg_dump"), "-h", str(database.query["host"]), "-U", str(database.username)]
    return subprocess.run([*command, "-d", str(database.database)], capture_output=True, check=True).stdout


async def rows_of(store: DatabaseStore, user: str) -> dict[str, Any]:
    async with sql_connection(store.database) as connection:
        found = {}
        for table in OWNED:
            rows = await connection.execute(text(f"SELECT r::text FROM {table} r WHERE user_id = :u"), {"u": user})
            found[table] = sorted(row[0] for row in rows)
    return found


async def marked_user(store: DatabaseStore, storage: ObjectStorage, user: str, canaries: list[str]) -> None:
    """A user with everything, whose texts, titles, metadata, names and files have a canary each."""
    await store_user_data(store, UserData(user, canaries.pop(), is_answered=True))
    context = RequestContext(user)
    await storage.put("00/none/0", canaries.pop().encode(), content_type="text/plain", disposition="attachment")
    number = 0
    while len(canaries) > 4:
        number += 1
        name = f"thr_{user}_{number}"
        await store.save_thread(thread(name, title=canaries.pop(), metadata={"of": canaries.pop()}), context)
        for place in range(min(20, len(canaries) - 2)):
            await store.add_thread_item(name, user_message(name, f"m{place}", f"a {canaries.pop()}"), context)
    await store.save_attachment(FileAttachment(id=f"atc_{user}", name=canaries.pop(), mime_type="text/plain"), context)
    async with sql_connection(store.database) as connection:
        claims = {"claims": json.dumps({"email": canaries.pop()}), "user": user}
        command = "UPDATE chat_users SET metadata = CAST(:claims AS jsonb) WHERE user_id = :user"
        await connection.execute(text(command), claims)


def test_every_table_of_users_is_erased() -> None:
    assert {*KEYS, "chat_attachments", "chat_users"} == set(OWNED)
    assert KNOWN_FOR_SECONDS < REFUSED_AFTER_SECONDS


async def test_no_canary_is_left(
    full: DatabaseStore, storage: ObjectStorage, database_url: URL, tmp_path: Path
) -> None:
    user, other = "erased-user", "other-user"
    canaries = [f"canary{number:04d}q" for number in range(1000)]
    await marked_user(full, storage, user, canaries.copy())
    await store_user_data(full, UserData(other, "STAYS", is_answered=True))
    audit = Audit(full.database, KEY)
    for actor, subject in (("sam", user), (user, other), ("sam", other)):
        await audit.record(Look(actor, "http", "thread.show", subject, f"thr_{subject}_1"))
    before, dumped = await rows_of(full, other), dump_of(database_url)
    assert sum(canary.encode() in dumped for canary in canaries) > 990
    receipt = await quick(full, storage).erase(user)
    dumped = dump_of(database_url)
    files = b"".join(path.read_bytes() for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert [canary for canary in canaries if canary.encode() in dumped + files] == []
    assert user.encode() not in dumped + files
    assert await rows_of(full, other) == before
    document = receipt.document(30)
    assert document["rows"]["chat_messages"] > 900
    assert document["rows"].keys() == set(OWNED)
    assert (document["files"], document["bytes"], document["turns_ended"]) == (1, 1, 1)
    assert document["user_hash"] not in {"", user}
    assert user not in json.dumps(document)
    assert document["audit_entries_unnamed"] == 3
    head = await audit.verify()
    # The erasure itself is the fourth.
    assert head.sequence == 4
    assert {row["subject_hash"] async for row in audit.entries(user)} == {document["user_hash"]}
    assert (document["remains"]["backups"] or "").startswith("until 20")
    assert "as long as you keep" in receipt.document(None)["remains"]["backups"]


@pytest.mark.parametrize("seed", range(3))
async def test_an_erasure_that_was_interrupted_is_finished_by_the_next_one(
    full: DatabaseStore, storage: ObjectStorage, seed: int
) -> None:
    user, dice = new_user(), random.Random(seed)
    for _ in range(5):
        await random_thread(full, user, dice)
    await store_user_data(full, UserData(user, "MARK", is_answered=True))
    for _ in range(30):
        left = dice.randint(1, 12)

        async def failing(owner: str, statement: Any, **parameters: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StorageUnavailable
            return await Database.run(full.database, owner, statement, **parameters)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(full.database, "run", failing)
            try:
                await quick(full, storage).erase(user)
            except StorageUnavailable:
                continue
        break
    await quick(full, storage).erase(user)
    assert {name: rows for name, rows in (await rows_of(full, user)).items() if rows} == {}


async def test_a_restored_backup_does_not_bring_a_user_back(full: DatabaseStore, storage: ObjectStorage) -> None:
    gone, anew, other = "gone", "anew", "other"
    users = [UserData(name, f"MARK-{name}") for name in (gone, anew, other)]
    for user_data in users:
        await store_user_data(full, user_data)
    erasure = quick(full, storage)
    for name in (gone, anew):
        await erasure.erase(name)
    # One is restored as of before; the table of tombstones, too. The other one has begun anew.
    async with sql_connection(full.database) as connection:
        await connection.execute(text("DELETE FROM chat_erased"))
    await store_user_data(full, UserData(gone, "MARK-gone"))
    async with sql_connection(full.database) as connection:
        await connection.execute(
            text("UPDATE chat_users SET created_at = now() - interval '1 day' WHERE user_id = 'gone'")
        )
    await store_user_data(full, UserData(anew, "MARK-anew"))
    before = {name: await rows_of(full, name) for name in (anew, other)}
    # With another key, nobody is named.
    stranger = Erasure(full.database, storage, "x" * 40, wait_seconds=0)
    assert [receipt async for receipt in stranger.erase_again()] == []
    receipts = [receipt async for receipt in quick(full, storage).erase_again()]
    assert [receipt.user_hash for receipt in receipts] == [Hashes(KEY).of_user(gone)]
    assert {name: await rows_of(full, name) for name in (anew, other)} == before
    assert not await erasure.is_known(gone)
    assert [receipt async for receipt in quick(full, storage).erase_again()] == []


async def test_without_files_the_database_remembers(full: DatabaseStore) -> None:
    await store_user_data(full, UserData("alice", "MARK"))
    async with sql_connection(full.database) as connection:
        await connection.execute(text("DELETE FROM chat_attachments"))
    receipt: Receipt = await quick(full, NoStorage()).erase("alice")
    assert receipt.files == 0
    async with sql_connection(full.database) as connection:
        assert await connection.scalar(text("SELECT user_hash FROM chat_erased")) == receipt.user_hash


def test_a_user_is_erased_beside_a_running_server_and_begins_anew(
    tmp_path: Path, database_url: URL, model_server: ModelServer
) -> None:
    settings = environment(database_url, model_server) | {"CHAT_ERASURE_KEY": KEY}
    process = ChatProcess(tmp_path, **settings).wait_until_ready()
    user = new_user()
    client = ChatClient(process.base_url, mint(SECRET, user, seconds=600))
    up = Uploader(client)
    attachment = up.ready(b"CANARY in a file")
    link = up.describe(attachment).json()["download_url"]
    thread_id = thread_id_of(client.events("threads.create", input=message("CANARY") | {"attachments": [attachment]}))
    running = client.stream(
        "threads.add_user_message",
        on_disconnect="finish",
        thread_id=thread_id,
        input=message(script(words=900, delay=0.1)),
    )
    running.wait_for_text(3)

    def erase(*more: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chatkit_postgres", "user", "erase", user, *more]
        environ = clean_environment(**settings) | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, env=environ, input=answer, capture_output=True, text=True, check=False, timeout=90
        )

    assert erase(answer="n\n").returncode == 1
    assert client.items(thread_id)
    done = erase("--yes")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["files"], receipt["turns_ended"]) == (1, 1)
    assert [event["type"] for event in running.wait()][-1] == "error"
    assert http.get(link).status_code in {403, 404}
    assert erase("--yes").stderr == f"user: there is no user {user}\n"

    # The list of disabled users is nine seconds old at most.
    eventually(lambda: client.post("threads.list").status_code == 200, 20)
    assert client.call("threads.list")["data"] == []
    assert http.get(link).status_code == 404
    assert client.post("threads.get_by_id", thread_id=thread_id).status_code == 404
    client.create("Hello again")
    assert len(client.call("threads.list")["data"]) == 1
    assert b"CANARY" not in dump_of(database_url)
    assert "CANARY" not in process.log
    stored = [path for path in (tmp_path / ".data" / "attachments").rglob("*") if path.is_file()]
    assert [path.parent.name for path in stored] == ["erased"]
    assert query(database_url, "SELECT user_hash FROM chat_erased") == [{"user_hash": receipt["user_hash"]}]
    assert process.stop() == 0
