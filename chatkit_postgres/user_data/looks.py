"""What operators see of a user and of a thread, with what no client receives."""

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.index_entries import searchable_text
from chatkit_postgres.store.rows import load_item
from chatkit_postgres.store.sql import reports as sql

NEWEST_THREADS = 10
PAGE = 100

Record = Mapping[str, Any]
"""An object of JSON."""


async def is_user(database: Database, owner: str) -> bool:
    """Whether they have ever had a thread here, or were disabled."""
    return bool(await database.run(owner, sql.FIND_USER))


async def user_record(database: Database, owner: str) -> Record | None:
    """Their state, numbers, tokens, and the threads that were changed last. None if there is no such user."""
    found = await database.run(owner, sql.SHOW_USER)
    if not found:
        return None
    newest = await database.run(owner, sql.LIST_CHANGED_THREADS, page=NEWEST_THREADS)
    numbers, *threads = [{name: _plain(value) for name, value in dict(row).items()} for row in (found[0], *newest)]
    return {"user": owner, **numbers, "claims": json.loads(found[0]["claims"]), "newest_threads": threads}


async def thread_records(database: Database, owner: str, thread_id: str) -> AsyncIterator[Record]:
    """The thread, its items and calls of tools in their order, and the turns that did not end well, by time. Nothing if
    the user has no such thread."""
    try:
        thread = await DatabaseStore(database).load_thread(thread_id, RequestContext(owner))
    except NotFound:
        return
    yield {"type": "thread", "user": owner, **json.loads(thread.model_dump_json())}
    session = session_uuid(thread_id)
    ends = deque(await database.run(owner, sql.LIST_ENDS_OF_TURNS, session=session))
    place = (0, 0)
    while page := await _page(database, owner, thread_id, place):
        for row in page:
            while ends and ends[0]["ended_at"] is not None and ends[0]["ended_at"] < row["created_at"]:
                yield _turn(ends.popleft())
            yield _item(row)
        place = (page[-1]["position"], page[-1]["sequence"])
    for end in ends:
        yield _turn(end)


async def _page(database: Database, owner: str, thread_id: str, place: tuple[int, int]) -> list[Row]:
    position, sequence = place
    found = await database.run(
        owner,
        sql.LIST_RECORDS_OF_THREAD,
        session=session_uuid(thread_id),
        after_position=position,
        after_sequence=sequence,
        page=PAGE,
    )
    return list(found)


def _item(row: Row) -> Record:
    if row["kind"] == "tool_call":
        return {
            "type": "tool_call",
            "name": row["name"],
            "arguments": row["text"],
            "output": row["output"],
            "created_at": _plain(row["created_at"]),
        }
    item = json.loads(row["item"])
    return {
        "type": "item",
        "kind": row["kind"],
        "agent": row["name"],
        "text": row["text"] or _text_of(row),
        "is_unfinished": row["is_partial"],
        "created_at": _plain(row["created_at"]),
        "item": item,
    }


def _text_of(row: Row) -> str:
    """What search knows of an item that has no text of its own, such as a widget."""
    return searchable_text(load_item({"item": row["item"], "item_id": ""}, ""))


def _turn(row: Row) -> Record:
    return {"type": "turn", **{name: _plain(value) for name, value in dict(row).items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, int | float | str | None) else str(value)
