"""A file is sent with one message, or the message is refused and nothing is stored."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chatkit.types import FileAttachment, LockedStatus, UserMessageItem

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.errors import AttachmentUnavailable
from chatkit_postgres.store import DatabaseStore
from tests.attachments.conftest import Place
from tests.conftest import execute, query
from tests.faults.harness import new_user
from tests.support.chat import Chat, add_message, create, demo_assistant, stored
from tests.support.files import Uploader
from tests.support.processes import done_items, http, message, thread_id_of
from tests.support.sql import OF_CHECKPOINTS, Statements


def sent(*attachment_ids: str, words: str = "Look") -> dict[str, Any]:
    return message(words) | {"attachments": list(attachment_ids)}


def rows(place: Place, user: str) -> dict[str, int]:
    tables = ("users", "sessions", "messages", "turns")
    return {
        table: query(place.database, f"SELECT count(*) FROM chat_{table} WHERE user_id = '{user}'")[0]["count"]
        for table in tables
    }


def test_a_message_brings_its_files_in_their_order(place: Place) -> None:
    user = place.user()
    ids = [user.ready(name=f"{number}.txt") for number in range(3)]
    ids = [ids[2], ids[0], ids[1]]
    events = user.client.events("threads.create", input=sent(*ids))
    assert [attachment["id"] for attachment in done_items(events)[0]["attachments"]] == ids
    another = user.ready()
    thread_id = thread_id_of(events)
    user.client.events("threads.add_user_message", thread_id=thread_id, input=sent(another, words=""))
    items = user.client.items(thread_id)
    assert [attachment["id"] for attachment in items[2]["attachments"]] == [another]
    found = query(place.database, f"SELECT * FROM chat_attachments WHERE attachment_id = '{another}'")[0]
    assert str(found["session_id"]) != "None"
    assert str(found["message_id"]) != "None"


@pytest.mark.parametrize("operation", ["threads.create", "threads.add_user_message"])
@pytest.mark.parametrize(
    ("which", "status", "code"),
    [
        ("absent", 404, "not_found"),
        ("foreign", 404, "not_found"),
        ("deleted", 404, "not_found"),
        ("pending", 409, "attachment_unavailable"),
        ("sent before", 409, "attachment_unavailable"),
        ("twice", 422, "invalid_request"),
        ("eleven", 422, "invalid_request"),
    ],
)
def test_a_message_with_a_file_that_cannot_be_sent_stores_nothing(
    place: Place, operation: str, which: str, status: int, code: str
) -> None:
    name = new_user()
    user, other = Uploader(place.client(name)), place.user()
    thread_id = thread_id_of(user.client.create("Hello"))
    good = user.ready()
    match which:
        case "absent":
            bad = ["atc_" + "0" * 32]
        case "foreign":
            bad = [other.ready()]
        case "deleted":
            bad = [user.ready()]
            user.client.call("attachments.delete", attachment_id=bad[0])
        case "pending":
            bad = [user.announce(b"abc")["id"]]
        case "sent before":
            bad = [user.ready()]
            user.client.events("threads.add_user_message", thread_id=thread_id, input=sent(*bad))
        case "twice":
            bad = [good]
        case _:
            bad = [user.ready() for _ in range(10)]
    before = rows(place, name)
    params = {"thread_id": thread_id} if operation == "threads.add_user_message" else {}
    refused = user.client.post(operation, input=sent(good, *bad), **params)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert rows(place, name) == before
    # What was good is still good.
    assert user.client.post(operation, input=sent(good), **params).status_code == 200


def test_of_many_messages_at_once_one_gets_the_file(local: Place) -> None:
    name = new_user()
    user = Uploader(local.client(name))
    thread_id = thread_id_of(user.client.create("Hello"))
    attachment_id = user.ready()

    def send(number: int) -> int:
        if number % 2:
            return user.client.post("threads.create", input=sent(attachment_id)).status_code
        return user.client.post("threads.add_user_message", thread_id=thread_id, input=sent(attachment_id)).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(send, range(6)))
    assert statuses == [200, 409, 409, 409, 409, 409]
    held = f"SELECT * FROM chat_messages WHERE user_id = '{name}' AND item::text LIKE '%{attachment_id}%'"
    assert len(query(local.database, held)) == 1
    # No empty thread is left behind.
    empty = (
        f"SELECT * FROM chat_sessions s WHERE user_id = '{name}' AND NOT EXISTS"
        " (SELECT 1 FROM chat_messages m WHERE (m.user_id, m.session_id) = (s.user_id, s.session_id))"
    )
    assert query(local.database, empty) == []


@pytest.mark.parametrize("at_once", [False, True])
def test_a_request_that_is_made_again_finds_its_files_sent(local: Place, at_once: bool) -> None:
    user = local.user()
    attachment_id = user.ready()

    def ask(_: int) -> list[dict[str, Any]]:
        return user.client.stream("threads.create", key=f"key-{attachment_id}", input=sent(attachment_id)).wait()

    if at_once:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask, range(3)))
    else:
        answers = [ask(number) for number in range(3)]
    assert len({thread_id_of(events) for events in answers}) == 1
    assert len(user.client.call("threads.list")["data"]) == 1
    assert all(done_items(events)[0]["attachments"][0]["id"] == attachment_id for events in answers)


def test_a_locked_thread_takes_no_file_and_gives_none_up(local: Place) -> None:
    user = local.user()
    attachment_id, another = user.ready(), user.ready()
    thread_id = thread_id_of(user.client.events("threads.create", input=sent(attachment_id)))
    locked = LockedStatus().model_dump_json()
    execute(local.database, f"UPDATE chat_sessions SET status = '{locked}' WHERE thread_id = '{thread_id}'")
    for refused in (
        user.client.post("threads.add_user_message", thread_id=thread_id, input=sent(another)),
        user.client.post("attachments.delete", attachment_id=attachment_id),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "thread_locked")
    assert user.content(attachment_id).status_code == 200
    assert user.client.post("threads.create", input=sent(another)).status_code == 200


def test_deleting_a_thread_deletes_its_files(place: Place) -> None:
    user = place.user()
    attachment_id = user.ready()
    thread_id = thread_id_of(user.client.events("threads.create", input=sent(attachment_id)))
    download = user.describe(attachment_id).json()["download_url"]
    user.client.call("threads.delete", thread_id=thread_id)
    assert user.describe(attachment_id).status_code == 404
    assert http.get(download).status_code == 404
    (row,) = query(place.database, f"SELECT state FROM chat_attachments WHERE attachment_id = '{attachment_id}'")
    assert row["state"] == "deleted"


def test_a_thread_that_begins_with_a_file_is_called_like_it(local: Place) -> None:
    user = local.user()
    events = user.client.events("threads.create", input=sent(user.ready(name="Report 2026.txt"), words=""))
    thread = user.client.call("threads.get_by_id", thread_id=thread_id_of(events))
    assert thread["title"] == "Report 2026.txt"


class TestStatements:
    """In the process, where they can be counted."""

    async def ready(self, store: DatabaseStore, attachment_id: str) -> FileAttachment:
        attachment = FileAttachment(id=attachment_id, name="a.txt", mime_type="text/plain")
        context = RequestContext("alice")
        await store.attachments.create(
            attachment, context, storage_key="00/x", declared_bytes=1, upload_seconds=900, max_unsent=50
        )
        await store.attachments.finish_upload(attachment, context, stored_bytes=1, sha256="0")
        return attachment

    async def test_files_cost_a_message_one_statement_however_many_they_are(
        self, store: DatabaseStore, database: Database
    ) -> None:
        chat, counts = Chat(store, demo_assistant()), []
        thread_id = thread_id_of(await chat.events(create("Hello")))
        for number in (0, 1, 5):
            request = add_message(thread_id, "Look")
            for each in range(number):
                attachment = await self.ready(store, f"atc_{number}_{each}")
                request.params.input.attachments.append(attachment.id)
            statements = Statements(database)
            await chat.events(request)
            # The contents a model sees are read one by one.
            own = [name for name in statements.names if name not in {"load_attachments"} | OF_CHECKPOINTS]
            counts.append((len(own), statements.names[0]))
        assert counts == [(6, "load_thread"), (6, "load_attachments"), (6, "load_attachments")]

    async def test_the_statement_decides_when_the_look_before_was_too_early(
        self, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look and the statement somebody else sends the file."""
        chat = Chat(store, demo_assistant())
        attachment = await self.ready(store, "atc_1")
        first, second = create("one"), create("two")
        first.params.input.attachments = second.params.input.attachments = ["atc_1"]
        original, looked, calls = store.attachments.load_files, asyncio.Barrier(2), itertools.count()

        async def together(*given: Any) -> Any:
            found = await original(*given)
            if next(calls) < looked.parties:
                await looked.wait()
            return found

        monkeypatch.setattr(store.attachments, "load_files", together)
        answers = await asyncio.gather(chat.events(first), chat.events(second), return_exceptions=True)
        assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [AttachmentUnavailable]
        assert len(await stored(store, "SELECT 1 FROM chat_sessions")) == 1
        (item,) = await stored(store, "SELECT item::text FROM chat_messages WHERE item_type = 'user_message'")
        assert attachment.id in UserMessageItem.model_validate_json(item["item"]).attachments[0].id
