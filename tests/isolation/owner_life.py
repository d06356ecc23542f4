"""The owner uses everything there is, while strangers stand before each statement."""

import asyncio
import json
import tempfile
import uuid
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import FileAttachment, WidgetItem
from chatkit.widgets import DynamicWidgetRoot
from obstore.store import MemoryStore
from sqlalchemy import text

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import TooManyTurns
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.approvals import closed_calls_of
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.ids import new_approval_id, new_id, session_uuid
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import limits
from chatkit_postgres.store.tool_calls import ToolCall
from chatkit_postgres.user_data.archive import ArchiveReader
from chatkit_postgres.user_data.export import Export
from chatkit_postgres.user_data.importing import Import
from tests.isolation.matrix import Matrix, Params
from tests.isolation.strangers import Strangers
from tests.isolation.user_data import FILE, UserData
from tests.support.assistants import BUTTON
from tests.support.items import assistant_message, thread, user_message
from tests.support.processes import message, parse_events
from tests.support.sql import sql_connection


async def _answer_that_is_judged(user_data: UserData, store: DatabaseStore) -> None:
    session = WriteSession("threads.retry_after_item", awaits_verdict=True)
    context = RequestContext(user_id=user_data.user, session=session)
    await store.turns.open_retry(user_data.other_thread, user_data.other_message, context)
    # As a turn beats that the SDK's ``process`` runs.
    await store.turns.heartbeat(context)
    draft = assistant_message(user_data.other_thread, new_id("message"), "judged")
    await store.add_thread_item(user_data.other_thread, draft, context)
    await store.writer.publish_answer(user_data.other_thread, context)
    await store.turns.finish(context, Outcome("completed"))


async def _question(user_data: UserData, store: DatabaseStore) -> None:
    """The owner answers a question of a run; its turn is interrupted, and another one goes on with it."""
    thread_id = user_data.asking_thread

    def turn() -> RequestContext:
        return RequestContext(user_data.user, session=WriteSession("threads.custom_action"))

    run = await store.approvals.find(thread_id, user_data.card, user_data.context)
    assert run is not None
    for call in run.calls:
        asking = WidgetItem(
            id=call.item_id,
            thread_id=thread_id,
            created_at=datetime.now(),  # noqa: DTZ005 - as the SDK does
            widget=DynamicWidgetRoot.model_validate(BUTTON),
        )
        answering = turn()
        assert await store.approvals.answer(thread_id, asking, "approved", answering, {}) is not None
    assert await store.approvals.begin_call(thread_id, user_data.card, answering)
    await store.turns.finish(answering, Outcome("interrupted"))
    going_on = turn()
    assert await store.approvals.take_over(thread_id, run.asked_by, going_on) is not None
    other = next(call for call in run.calls if call.item_id != user_data.card)
    assert await store.approvals.begin_call(thread_id, other.item_id, going_on)
    await store.approvals.end_call(thread_id, other.item_id, user_data.mark, going_on)
    ended = await store.approvals.find(thread_id, other.item_id, user_data.context)
    assert ended is not None
    assert ended.call_of(other.item_id).output == user_data.mark
    assert ended.call_of(user_data.card).is_uncertain
    await store.tool_calls.add(thread_id, [ToolCall("pay", "{}", user_data.mark)], going_on)
    found = await store.history.load_newest(thread_id, HistoryLimits(), user_data.context)
    assert [call.name for calls in found.calls.values() for call in calls] == ["look", "pay"]
    # It asks again; a retry makes the question void.
    again = replace(other, item_id=new_approval_id())
    await store.approvals.pause(thread_id, "{}", [again], going_on)
    await store.turns.finish(going_on, Outcome("waiting"))
    assert await store.approvals.find(thread_id, user_data.card, user_data.context) is None
    assert await store.approvals.find(thread_id, again.item_id, user_data.context) is not None
    retrying = turn()
    await store.turns.open_retry(thread_id, user_data.asking_message, retrying)
    assert [call.item_id for call in closed_calls_of(required_session(retrying))] == [again.item_id]
    # It asks once more; the process that goes on dies, and nobody goes on with the run.
    third = replace(other, item_id=new_approval_id(), answer=None, answered_by=None, begun_by=None, output=None)
    await store.approvals.pause(thread_id, "{}", [third], retrying)
    await store.turns.finish(retrying, Outcome("waiting"))
    answering = turn()
    asking = asking.model_copy(update={"id": third.item_id})
    assert await store.approvals.answer(thread_id, asking, "refused", answering, {}) is not None
    await store.turns.finish(answering, Outcome("interrupted"))
    asked_by = required_session(retrying).turn_id
    assert [call.item_id for call in await store.approvals.give_up(thread_id, asked_by, user_data.context)] == [
        third.item_id
    ]


async def _search(matrix: Matrix, store: DatabaseStore) -> None:
    """The owner finds what is their own, also of two that have rows without an entry."""
    mine, theirs = matrix.victim, matrix.own
    await matrix.database.execute("UPDATE chat_messages SET search_words = NULL WHERE NOT is_partial")
    asked = {"q": f"{mine.mark} OR"}, {"q": mine.mark}
    headers = {"Authorization": f"Bearer {matrix.token_of(mine)}"}
    nothing, found = [(await matrix.client.get("/api/search", params=q, headers=headers)).json() for q in asked]
    assert nothing == {"data": [], "has_more": False, "after": None}
    ids = {hit["item_id"] for hit in found["data"]}
    assert {mine.message, mine.answer, mine.other_message, mine.questions, mine.card, None} <= ids
    assert all(mine.mark in hit["snippet"] for hit in found["data"])
    left = await matrix.database.fetch("SELECT user_id FROM chat_messages WHERE search_words IS NULL GROUP BY 1")
    assert [row["user_id"] for row in left] == [theirs.user]
    await store.search_index.fill()


async def _taken_along(user_data: UserData, store: DatabaseStore, directory: Path) -> None:
    """The owner exports everything, loses a file and a thread, and imports everything."""
    storage = ObjectStorage(MemoryStore())
    place = await store.attachments.load_file(user_data.attachment, user_data.context)
    key = f"{place.storage_key}/{place.sha256}"
    await storage.put(key, FILE, content_type="text/plain", disposition="attachment")
    elsewhere = FileAttachment(id=new_id("attachment"), name=f"{user_data.mark}.md", mime_type="text/plain")
    await store.save_attachment(elsewhere, user_data.context)
    export = Export(store.database, storage, user_data.user, with_hidden=True)
    extent = await export.extent()
    assert extent is not None
    (items,) = await _rows_of(store, user_data.user, "messages")
    assert (extent.items, extent.bytes) == (items, 1)
    archive = directory / "export.zip"
    archive.write_bytes(b"".join([piece.data async for piece in export.pieces()]))
    with zipfile.ZipFile(archive) as written:
        records = [json.loads(line)["type"] for line in written.read("data.jsonl").splitlines()]
    # Of the owner, and of nobody else.
    for record, table in (("user", "users"), ("feedback", "feedback"), ("turn", "turns"), ("thread", "sessions")):
        assert [records.count(record)] == await _rows_of(store, user_data.user, table), record
    await store.delete_thread(user_data.other_thread, user_data.context)
    async with sql_connection(store.database) as connection:
        await connection.execute(
            text("DELETE FROM chat_attachments WHERE user_id = :user AND attachment_id = :id"),
            {"user": user_data.user, "id": user_data.attachment},
        )
        await connection.execute(text("DELETE FROM chat_attachments WHERE attachment_id = :id"), {"id": elsewhere.id})
    importing, reader = Import(store.database, storage, user_data.user), ArchiveReader(archive)
    async for _ in importing.run(reader):
        pass
    assert importing.report.imported["thread"] == 1
    assert importing.report.imported["attachment"] == 2
    # Another item of that thread, as others write it.
    item = json.loads(assistant_message(user_data.other_thread, new_id("message"), user_data.mark).model_dump_json())
    archive.write_text(json.dumps({"type": "item", "thread_id": user_data.other_thread, "item": item}))
    more = Import(store.database, storage, user_data.user)
    async for _ in more.run(ArchiveReader(archive)):
        pass
    assert more.report.imported["item"] == 1
    found = await store.load_item(user_data.other_thread, user_data.other_message, user_data.context)
    assert user_data.mark in str(found)


async def _rows_of(store: DatabaseStore, user: str, table: str) -> list[int]:
    async with sql_connection(store.database) as connection:
        count = f"SELECT count(*) FROM chat_{table} WHERE user_id = :user"
        return [int(await connection.scalar(text(count), {"user": user}) or 0)]


async def _as_others_use_the_store(user_data: UserData, store: DatabaseStore) -> None:
    """A server that knows the SDK's Store alone; and an answer whose image is in none of its items."""
    await store.save_thread(thread(new_id("thread"), title=user_data.mark), user_data.context)
    answering = RequestContext(user_data.user, session=WriteSession("threads.create"))
    begun = new_id("thread")
    await store.threads.begin(thread(begun), user_message(begun, new_id("message"), user_data.mark), answering)
    image = FileAttachment(id=new_id("attachment"), name=user_data.mark, mime_type="image/png")
    await store.attachments.create(
        image, user_data.context, storage_key="00/none", declared_bytes=1, upload_seconds=900, max_unsent=None
    )
    required_session(answering).made_attachments.add(image.id)
    await store.turns.finish(answering, Outcome("stopped"))


async def _usage(matrix: Matrix) -> None:
    """What others use is not counted."""
    user = matrix.victim.user
    await matrix.database.execute(
        "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, ended_at)"
        " VALUES ($1, $2, $2, 'threads.create', 'completed', now())",
        *(matrix.own.user, uuid.uuid4()),
    )
    headers = {"Authorization": f"Bearer {matrix.token_of(matrix.victim)}"}
    usage = await matrix.client.get("/api/usage", headers=headers)
    turns = await matrix.database.fetchval("SELECT count(*) FROM chat_turns WHERE user_id = $1", user)
    assert usage.json()["total"]["turns"] == turns


async def _running(matrix: Matrix) -> None:
    """A turn of another user is not listed, also not in a thread with the same id."""
    owner, other, thread = matrix.victim.user, matrix.own.user, matrix.victim.thread
    turn = (
        "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, started_at, heartbeat_at)"
        " SELECT $1, session_id, $2, 'threads.create', 'running', now(), now()"
        " FROM chat_sessions WHERE user_id = $3 AND thread_id = $4"
    )
    headers = {"Authorization": f"Bearer {matrix.token_of(matrix.victim)}"}

    async def listed() -> list[str]:
        found = await matrix.client.get("/api/threads/running", headers=headers)
        return sorted(row["thread_id"] for row in found.json()["data"])

    before, turns = await listed(), [uuid.uuid4(), uuid.uuid4()]
    try:
        await matrix.database.execute(turn, other, turns[0], owner, thread)
        assert await listed() == before
        await matrix.database.execute(turn, owner, turns[1], owner, thread)
        assert await listed() == sorted([*before, thread])
    finally:
        await matrix.database.execute("DELETE FROM chat_turns WHERE turn_id = ANY($1)", turns)


async def _limits(matrix: Matrix, store: DatabaseStore) -> None:
    """What others do and spend is nothing to the owner, who reaches the limits."""
    owner, other = matrix.victim.user, matrix.own.user
    for statement in (
        "INSERT INTO chat_rates VALUES ($1, 0, 7, 7, 0) ON CONFLICT (user_id) DO UPDATE SET requests = 7",
        "INSERT INTO chat_allowances VALUES ($1, '{}', 7, 7, now(), 7) ON CONFLICT (user_id) DO UPDATE SET turns = 7",
    ):
        await matrix.database.execute(statement, other)
    counted = await store.database.run(owner, limits.COUNT_REQUESTS, requests=1, per_minute=1)
    assert [row["are_counted"] for row in counted] == [False]
    turn = uuid.uuid4()
    limit = {"max_turns": 1, "tokens": 5, "tokens_per_day": 1000}
    await store.limits.hold_turn(turn, matrix.victim.context, **limit)
    allowances = await store.database.run(owner, limits.READ_ALLOWANCE)
    assert [dict(row) for row in allowances] == [{"turns": 1, "tokens_held": 5, "tokens_spent": 0}]
    with pytest.raises(TooManyTurns):
        await store.limits.hold_turn(uuid.uuid4(), matrix.victim.context, **limit)
    await store.limits.release_turn(turn, matrix.victim.context)
    assert (await store.limits.allowance(matrix.victim.context)).turns == 0


async def _follow_and_stop(matrix: Matrix, thread_id: str) -> None:
    headers = {"Authorization": f"Bearer {matrix.token_of(matrix.victim)}"}
    url = f"/api/threads/{thread_id}"
    # Until the turn has opened.
    for _ in range(100):
        followed = await matrix.client.get(f"{url}/live", headers=headers)
        if followed.status_code == 200:
            break
        await asyncio.sleep(0.03)
    assert [event["type"] for event in parse_events(followed.text)].count("thread.item.done") > 0
    assert (await matrix.client.post(f"{url}/stop", headers=headers)).json() == {"stopped": False}


async def _files(
    matrix: Matrix, store: DatabaseStore, thread_id: str, ask: Callable[[str, Params], Awaitable[list[dict[str, Any]]]]
) -> None:
    user_data, token = matrix.victim, matrix.token_of(matrix.victim)
    # How many files others have not sent is nothing to the owner.
    await matrix.database.execute(
        "INSERT INTO chat_attachments (user_id, attachment_id, attachment)"
        " SELECT $1, 'full' || number, '{}' FROM generate_series(1, 60) number",
        matrix.own.user,
    )
    announced = {"name": "a.txt", "size": 3, "mime_type": "text/plain"}
    response = await matrix.client.post(
        "/api/chatkit",
        json={"type": "attachments.create", "params": announced},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert response.status_code == 200, response.text
    await matrix.database.execute("DELETE FROM chat_attachments WHERE attachment_id LIKE 'full%'")
    url = response.json()["upload_descriptor"]["url"]
    assert (await matrix.client.put(url, content=b"abc")).status_code == 200
    sent = {"input": message("look") | {"attachments": [response.json()["id"]]}}
    await ask("threads.create", sent)
    brought = {"input": message("look") | {"attachments": [user_data.attachment]}}
    await ask("threads.add_user_message", {"thread_id": thread_id, **brought})
    mine = FileAttachment(id=user_data.attachment, name=f"{user_data.mark}.md", mime_type="text/plain")
    await store.save_attachment(mine, user_data.context)
    await store.delete_attachment(user_data.attachment, user_data.context)


async def owner_lives(matrix: Matrix, store: DatabaseStore, strangers: Strangers) -> None:
    """The owner uses everything there is, so that every statement of the store runs. Ends at the first finding."""
    user_data = matrix.victim
    token = matrix.token_of(user_data)

    async def ask(operation: str, params: Params, key: str | None = None) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
        response = await matrix.client.post("/api/chatkit", json={"type": operation, "params": params}, headers=headers)
        assert strangers.findings == [], strangers.findings
        assert response.status_code == 200, response.text
        return parse_events(response.text)

    def message_input(words: str) -> Params:
        return {"input": message(words)}

    created = await ask("threads.create", message_input("slowly"), key="first")
    thread_id = created[0]["thread"]["id"]
    assert await ask("threads.create", message_input("slowly"), key="first")
    first = next(event["item"]["id"] for event in created if event["type"] == "thread.item.done")
    # A newer message takes the thread from an older one.
    older = asyncio.create_task(ask("threads.add_user_message", {"thread_id": thread_id, **message_input("slowly")}))
    await asyncio.sleep(0.2)
    await ask("threads.add_user_message", {"thread_id": thread_id, **message_input("now")})
    await older
    retry = asyncio.create_task(ask("threads.retry_after_item", {"thread_id": thread_id, "item_id": first}))
    await _follow_and_stop(matrix, thread_id)
    await retry
    await ask("threads.add_user_message", {"thread_id": thread_id, **message_input("ask")})
    await ask("threads.add_client_tool_output", {"thread_id": thread_id, "result": 1})
    press_it = {"thread_id": user_data.thread, "item_id": user_data.widget, "action": {"type": "press"}}
    for operation, params in (
        ("threads.list", {"limit": 2, "order": "asc", "after": user_data.thread}),
        ("threads.list", {"limit": 2}),
        ("items.list", {"thread_id": user_data.thread, "order": "asc", "after": user_data.message}),
        ("items.feedback", {"thread_id": user_data.thread, "item_ids": [user_data.answer], "kind": "negative"}),
        ("threads.get_by_id", {"thread_id": user_data.thread}),
        ("items.list", {"thread_id": user_data.thread}),
        ("threads.sync_custom_action", press_it),
        ("threads.custom_action", press_it),
        ("threads.update", {"thread_id": user_data.thread, "title": "Another"}),
    ):
        await ask(operation, params)
    # A turn of this thread lost its process an hour ago.
    await matrix.database.execute(
        "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, heartbeat_at)"
        " VALUES ($1, $2, $3, 'threads.create', now() - interval '1 hour')",
        *(user_data.user, session_uuid(user_data.thread), uuid.uuid4()),
    )
    await store.turns.close_stale(user_data.thread, user_data.context, stale_seconds=60)
    await store.load_item(user_data.thread, user_data.answer, user_data.context)
    await _as_others_use_the_store(user_data, store)
    waiting = await matrix.client.get("/api/threads/waiting", headers={"Authorization": f"Bearer {token}"})
    assert [found["thread_id"] for found in waiting.json()["data"]] == [user_data.asking_thread]
    await _search(matrix, store)
    with tempfile.TemporaryDirectory() as directory:
        await _taken_along(user_data, store, Path(directory))
    await _question(user_data, store)
    await _answer_that_is_judged(user_data, store)
    await _usage(matrix)
    await _running(matrix)
    await _limits(matrix, store)
    await _files(matrix, store, thread_id, ask)
    await ask("threads.delete", {"thread_id": thread_id})
