"""The benchmarks judge answers correctly, and fill databases with threads that the store can load."""

import json
from typing import Any

import pytest
from sqlalchemy import URL

from benchmarks.counters import connection_to
from benchmarks.exchange import REFUSED, WHOLE, judged
from benchmarks.scale_rows import HEAVY_USER, ITEMS, LONG_USER, THREADS, Filled, fill, thread_id
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore

UPDATES = [{"type": "thread.item.updated", "update": {"type": "text", "delta": word}} for word in ("w0 ", "w1 ")]
ERROR = {"type": "error", "code": "custom", "message": "The database is unavailable."}


def done(text: str) -> dict[str, Any]:
    return {"type": "thread.item.done", "item": {"type": "assistant_message", "content": [{"text": text}]}}


def response(*events: dict[str, Any], is_ended: bool = True) -> bytes:
    frames = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames)
    return b"HTTP/1.1 200 OK\r\n\r\n" + chunks + (b"0\r\n\r\n" if is_ended else b"")


@pytest.mark.parametrize(
    ("received", "judgement"),
    [
        (response(*UPDATES, done("w0 w1 ")), WHOLE),
        (response(*UPDATES, done("w0 w1"), is_ended=False), "broken off"),
        (response(*UPDATES, done("w0 w1"))[:-15], "broken off"),
        (response(*UPDATES, done("w0")), "words missing"),
        (response(*UPDATES[:1], done("w0 w1")), "words missing"),
        (response(*UPDATES), "words missing"),
        (response(*UPDATES, ERROR), "custom: The database is unavailable."),
        (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n{}", REFUSED),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", "status 503"),
        (b"HTTP/1.1 500 Internal Server Error\r\nRetry-After: 5\r\n\r\n{}", "status 500"),
        (b"", "no response"),
    ],
)
def test_an_answer_is_whole_if_nothing_of_it_is_missing(received: bytes, judgement: str) -> None:
    assert judged(received, 2) == judgement


async def test_the_store_loads_the_threads_of_a_filled_database(store: DatabaseStore, database_url: URL) -> None:
    filled = Filled(2000)
    async with connection_to(database_url) as connection:
        await fill(connection, filled)
        assert await connection.fetchval("SELECT count(*) FROM chat_messages") == sum(
            items for _, _, items in filled.threads()
        )
    owned = [(HEAVY_USER, filled.heavy_threads, 2), (LONG_USER, 1, filled.long_items), (2, THREADS, ITEMS)]
    for user, threads, items in owned:
        context = RequestContext(user_id=f"user-{user}")
        assert len((await store.load_threads(1000, None, "desc", context)).data) == threads
        page = await store.load_thread_items(thread_id(user, 0), None, 1000, "asc", context)
        assert [item.type for item in page.data] == ["user_message", "assistant_message"] * (items // 2)
        assert {item.thread_id for item in page.data} == {thread_id(user, 0)}
