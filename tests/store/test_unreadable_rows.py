"""A row that cannot be read costs itself: not the page it is on, nor the thread, nor the turn."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from chatkit.types import (
    AssistantMessageItem,
    FileAttachment,
    HiddenContextItem,
    LockedStatus,
    ThreadGetByIdParams,
    ThreadsGetByIdReq,
    UserMessageItem,
)
from sqlalchemy import text

from chatkit_postgres.chat.history import recent_items
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Conflict, ThreadLocked
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import PartialItem
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.unreadable import LOCKED, SENTENCE
from tests.support.chat import Chat, add_message, demo_assistant, remaining_events
from tests.support.items import assistant_message, thread, user_message
from tests.support.sql import sql_connection

Break = Callable[[dict[str, Any]], object]

BROKEN: dict[str, tuple[str, Break, type, str]] = {
    "an unknown type": ("a", lambda item: item.update(type="hologram"), AssistantMessageItem, "Answer"),
    "no type": ("a", lambda item: item.pop("type"), AssistantMessageItem, "Answer"),
    "an unknown part": ("a", lambda item: item["content"].append({"type": "smell"}), AssistantMessageItem, "Answer"),
    "a text that is a number": ("a", lambda item: item["content"][0].update(text=7), AssistantMessageItem, SENTENCE),
    "no content": ("a", lambda item: item.pop("content"), AssistantMessageItem, SENTENCE),
    "content as a text": ("a", lambda item: item.update(content="plain"), AssistantMessageItem, "plain"),
    "no time": ("a", lambda item: item.pop("created_at"), AssistantMessageItem, "Answer"),
    "a broken time": ("a", lambda item: item.update(created_at="soon"), AssistantMessageItem, "Answer"),
    "a user's unknown part": ("u", lambda item: item["content"].append({"type": "smell"}), UserMessageItem, "Question"),
    "an attachment of a new kind": (
        "u",
        lambda item: item.update(attachments=[{"type": "video", "id": "v"}]),
        UserMessageItem,
        "Question",
    ),
    "no options": ("u", lambda item: item.pop("inference_options"), UserMessageItem, "Question"),
}


def alice(**turn: Any) -> RequestContext:
    return RequestContext(user_id="alice", session=WriteSession(**turn) if turn else None)


async def execute(store: DatabaseStore, statement: str, **values: Any) -> None:
    async with sql_connection(store.database) as connection:
        await connection.execute(text(statement), values)


async def broken(store: DatabaseStore, item_id: str, change: Break) -> None:
    """Question u and answer a, between others; then one row is changed behind the store's back."""
    await store.save_thread(thread("t"), alice())
    for item in (user_message("t", "first"), user_message("t", "u", "Question"), assistant_message("t", "a", "Answer")):
        await store.add_thread_item("t", item, alice())
    await store.add_thread_item("t", user_message("t", "last", "Still there?"), alice())
    async with sql_connection(store.database) as connection:
        found = await connection.execute(text("SELECT item FROM chat_messages WHERE item_id = :id"), {"id": item_id})
        document = found.scalar_one()
    change(document)
    await execute(
        store,
        "UPDATE chat_messages SET item = CAST(:item AS jsonb) WHERE item_id = :id",
        id=item_id,
        item=json.dumps(document),
    )


def words_of(item: Any) -> str:
    return "".join(part.text for part in item.content)


@pytest.mark.parametrize("kind", BROKEN)
async def test_an_item(store: DatabaseStore, kind: str) -> None:
    item_id, change, stands_in, words = BROKEN[kind]
    await broken(store, item_id, change)
    page = await store.load_thread_items("t", None, 10, "asc", alice())
    assert [item.id for item in page.data] == ["first", "u", "a", "last"]
    shown = next(item for item in page.data if item.id == item_id)
    assert isinstance(shown, stands_in)
    assert words_of(shown) == words
    assert words_of(await store.load_item("t", item_id, alice())) == words
    history = await recent_items(store, "t", alice(), HistoryLimits())
    assert [item.id for item in history] == ["first", "u", "a", "last"]
    # And a turn goes on, without changing the row.
    before = await stored(store, item_id)
    events = await Chat(store, demo_assistant()).events(add_message("t", "Hello"))
    assert [event for event in events if event["type"] == "error"] == []
    assert await stored(store, item_id) == before


async def stored(store: DatabaseStore, item_id: str) -> Any:
    async with sql_connection(store.database) as connection:
        found = await connection.execute(
            text("SELECT item::text FROM chat_messages WHERE item_id = :i"), {"i": item_id}
        )
        return found.scalar_one()


async def test_what_was_hidden_stays_hidden(store: DatabaseStore) -> None:
    await store.save_thread(thread("t"), alice())
    hidden = HiddenContextItem(id="h", thread_id="t", created_at=thread("t").created_at, content="secret")
    await store.add_thread_item("t", hidden, alice())
    await execute(store, "UPDATE chat_messages SET item = item - 'created_at'")
    assert (await store.items.load_page("t", None, 10, "asc", alice(), hidden=False)).data == []
    (item,) = (await store.load_thread_items("t", None, 10, "asc", alice())).data
    assert isinstance(item, HiddenContextItem)
    assert item.content == "secret"


async def test_it_is_logged_once_and_without_its_words(store: DatabaseStore, caplog: pytest.LogCaptureFixture) -> None:
    await broken(store, "a", lambda item: item.update(type="hologram", id="x"))
    await execute(store, "UPDATE chat_messages SET item_id = 'logged once' WHERE item_id = 'a'")
    for _ in range(3):
        await store.load_thread_items("t", None, 10, "asc", alice())
        await recent_items(store, "t", alice(), HistoryLimits())
    (line,) = [record.getMessage() for record in caplog.records if "row_unreadable" in record.getMessage()]
    assert all(value in line for value in ("item", "logged once", "hologram"))
    assert "Answer" not in line


async def test_a_replay_tells_the_others(store: DatabaseStore) -> None:
    context = alice(operation="threads.add_user_message", idempotency_key="k", request_hash="h")
    await store.save_thread(thread("t"), alice())
    await store.add_thread_item("t", user_message("t", "u"), context)
    await store.add_thread_item("t", assistant_message("t", "a", "Answer"), context)
    await store.turns.finish(context, Outcome("completed"))
    await execute(store, "UPDATE chat_messages SET item = item - 'content' WHERE item_id = 'u'")
    entry = await store.turns.find("k", alice())
    assert entry is not None
    assert [item.id for item in await store.turns.items_of(entry, alice())] == ["u", "a"]


STATUSES = ['{"type": "archived"}', '{"type": "locked", "reason": 7}', '"active"', "null", "[]"]


@pytest.mark.parametrize("status", STATUSES)
async def test_a_threads_status_is_locked(store: DatabaseStore, status: str) -> None:
    await store.save_thread(thread("t"), alice())
    await store.add_thread_item("t", user_message("t", "u"), alice())
    await execute(store, "UPDATE chat_sessions SET status = CAST(:status AS jsonb)", status=status)
    (listed,) = (await store.load_threads(10, None, "desc", alice())).data
    assert listed.status == LockedStatus(reason=LOCKED)
    chat = Chat(store, demo_assistant())
    with pytest.raises(ThreadLocked):
        await remaining_events(await chat.start(add_message("t", "Hello")))
    answer = await chat.server.answer(ThreadsGetByIdReq(params=ThreadGetByIdParams(thread_id="t")), alice())
    assert [item["id"] for item in json.loads(answer)["items"]["data"]] == ["u"]


@pytest.mark.parametrize("value", ["7", '"text"', "[1]", "null"])
async def test_a_threads_metadata_and_domains_are_empty(store: DatabaseStore, value: str) -> None:
    await store.save_thread(thread("t", title="Titled"), alice())
    await execute(
        store,
        "UPDATE chat_sessions SET metadata = CAST(:v AS jsonb), allowed_image_domains = CAST(:v AS jsonb)",
        v=value,
    )
    loaded = await store.load_thread("t", alice())
    assert (loaded.title, loaded.metadata) == ("Titled", {})
    assert loaded.allowed_image_domains in (None, [])


@pytest.mark.parametrize("value", ['{"type": "video"}', "7", '{"type": "file", "id": 3}'])
async def test_an_attachment(store: DatabaseStore, value: str) -> None:
    await store.save_attachment(FileAttachment(id="f", name="a.txt", mime_type="text/plain"), alice())
    await execute(store, "UPDATE chat_attachments SET attachment = CAST(:value AS jsonb)", value=value)
    loaded = await store.load_attachment("f", alice())
    assert (loaded.id, loaded.name, loaded.mime_type) == ("f", "file", "application/octet-stream")
    await store.delete_attachment("f", alice())


@pytest.mark.parametrize(
    "usage", ['{"input_tokens": "many"}', '{"input_tokens": 1.5}', "[]", '{"input_tokens": -1}', "7"]
)
async def test_a_turns_usage_counts_nothing(store: DatabaseStore, usage: str) -> None:
    for number, tokens in (("one", {"input_tokens": 3}), ("two", {"input_tokens": 4})):
        context = alice(operation="threads.create")
        await store.threads.begin(thread(number), user_message(number, "m"), context)
        await store.turns.finish(context, Outcome("completed", usage=tokens))
    await execute(
        store,
        "UPDATE chat_turns SET usage = CAST(:usage AS jsonb) WHERE usage ->> 'input_tokens' = '4'",
        usage=usage,
    )
    (day,) = await store.turns.usage_by_day(alice(), days=2)
    assert (day["turns"], day["input_tokens"]) == (2, 3)


async def test_what_stands_in_is_never_written(store: DatabaseStore) -> None:
    """As a turn that goes on with a workflow of an earlier one does it."""
    await broken(store, "a", lambda item: item.update(type="hologram"))
    before = await stored(store, "a")
    item = await store.load_item("t", "a", alice())
    for context in (alice(), alice(operation="threads.add_user_message")):
        if context.session is not None:
            await store.turns.open("t", context)
        for write in (store.save_item, store.add_thread_item):
            await write("t", item.model_copy(), context)
        if context.session is not None:
            await store.partials.save_items([PartialItem(context, item.model_copy())])
    with pytest.raises(Conflict):
        await store.items.change("t", item, alice())
    assert await stored(store, "a") == before
