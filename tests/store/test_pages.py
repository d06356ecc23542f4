"""Pages go on where they were, whatever was deleted meanwhile, and hidden items do not use them up."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from chatkit.types import HiddenContextItem, SDKHiddenContextItem, ThreadItem
from hypothesis import given
from hypothesis import strategies as st

from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore, cursors
from chatkit_postgres.store.ids import session_uuid
from tests.support.items import NAIVE, assistant_message, thread, user_message
from tests.support.sql import Statements, sql_connection

ALICE, BOB = SimpleNamespace(user_id="alice"), SimpleNamespace(user_id="bob")
Order = Literal["asc", "desc"]


async def filled(store: DatabaseStore, thread_id: str, count: int, context: Any = ALICE) -> None:
    await store.save_thread(thread(thread_id), context)
    for number in range(count):
        await store.add_thread_item(thread_id, user_message(thread_id, f"{thread_id}{number}"), context)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_items_go_on_when_what_was_shown_is_deleted(store: DatabaseStore, order: Order, size: int) -> None:
    await filled(store, "t", 9)
    names = [f"t{number}" for number in range(9)]
    seen: list[str] = []
    after = None
    while True:
        page = await store.load_thread_items("t", after, size, order, ALICE)
        seen += [item.id for item in page.data]
        for item in page.data:
            await store.delete_thread_item("t", item.id, ALICE)
        after = page.after
        if not page.has_more:
            break
    assert seen == (names if order == "asc" else names[::-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_threads_go_on_when_what_was_shown_is_deleted(store: DatabaseStore, order: Order, size: int) -> None:
    names = [f"t{number}" for number in range(7)]
    for name in names:
        await store.save_thread(thread(name), ALICE)
    seen: list[str] = []
    after = None
    while True:
        page = await store.load_threads(size, after, order, ALICE)
        seen += [found.id for found in page.data]
        for found in page.data:
            await store.delete_thread(found.id, ALICE)
        after = page.after
        if not page.has_more:
            break
    assert seen == (names if order == "asc" else names[::-1])


async def test_threads_of_one_moment_are_each_listed_once(store: DatabaseStore) -> None:
    for number in range(9):
        await store.save_thread(thread(f"t{number}"), ALICE)
    async with sql_connection(store.database) as connection:
        await connection.exec_driver_sql("UPDATE chat_sessions SET created_at = '2026-01-01 00:00:00.123456+00'")
    seen: list[str] = []
    after = None
    for _ in range(5):
        page = await store.load_threads(2, after, "desc", ALICE)
        seen += [found.id for found in page.data]
        if page.after is not None:
            await store.delete_thread(page.data[-1].id, ALICE)
        after = page.after
    assert sorted(seen) == [f"t{number}" for number in range(9)]


async def test_a_plain_id_is_a_cursor_while_its_row_is_there(store: DatabaseStore) -> None:
    await filled(store, "t", 4)
    page = await store.load_thread_items("t", "t1", 10, "asc", ALICE)
    assert [item.id for item in page.data] == ["t2", "t3"]
    await store.delete_thread_item("t", "t1", ALICE)
    with pytest.raises(NotFound):
        await store.load_thread_items("t", "t1", 10, "asc", ALICE)


async def test_a_cursor_is_of_one_list(store: DatabaseStore) -> None:
    for name in ("t", "other"):
        await filled(store, name, 4)
    await filled(store, "t", 4, BOB)
    for number in range(3):
        await store.save_thread(thread(f"his{number}"), BOB)
    of_other = (await store.load_thread_items("other", None, 2, "asc", ALICE)).after
    of_threads = (await store.load_threads(1, None, "asc", ALICE)).after
    his = (await store.load_threads(1, None, "asc", BOB)).after
    assert None not in {of_other, of_threads, his}
    for cursor in (of_other, of_threads, his):
        with pytest.raises(NotFound):
            await store.load_thread_items("t", cursor, 10, "asc", ALICE)
    for cursor in (of_other, his):
        with pytest.raises(NotFound):
            await store.load_threads(10, cursor, "asc", ALICE)


MALFORMED = [
    "",
    "~",
    "~~",
    "t1~2",
    "t1~2~",
    "t1~x~abc",
    "t1~2~0123456789ab",
    "~1~2~3",
    "t1~-1~a",
    "t1~\u0661~a",
    "\x00~1~a",
]
MALFORMED += ["t1~99999999999999999999999~a", "x" * 5000]


@pytest.mark.parametrize("cursor", MALFORMED[1:])
async def test_what_is_no_cursor_is_not_found(store: DatabaseStore, cursor: str) -> None:
    await filled(store, "t", 3)
    with pytest.raises(NotFound):
        await store.load_thread_items("t", cursor, 10, "asc", ALICE)
    with pytest.raises(NotFound):
        await store.load_threads(10, cursor, "asc", ALICE)


@given(row_id=st.text(), place=st.integers(0, cursors.MAX_PLACE))
def test_a_cursor_comes_back_as_it_was(row_id: str, place: int) -> None:
    for list_id in (session_uuid("t"), session_uuid("other")):
        text = cursors.encode(list_id, row_id, place)
        assert cursors.decode(list_id, text) == cursors.Cursor(row_id, place)
        assert cursors.decode(session_uuid("third"), text) == cursors.Cursor(text, None)


class TestHidden:
    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("hidden", [0, 1, 7, 60])
    async def test_they_use_up_no_page(self, store: DatabaseStore, order: Order, hidden: int) -> None:
        await store.save_thread(thread("t"), ALICE)
        for number in range(10):
            await store.add_thread_item("t", assistant_message("t", f"a{number}", "x"), ALICE)
            for other in range(hidden if number % 5 == 0 else 0):
                await store.add_thread_item("t", _hidden(number, other), ALICE)
        seen: list[str] = []
        sizes = []
        after = None
        while True:
            page = await store.items.load_page("t", after, 4, order, ALICE, hidden=False)
            seen += [item.id for item in page.data]
            sizes.append(len(page.data))
            if not page.has_more:
                break
            after = page.after
        names = [f"a{number}" for number in range(10)]
        assert seen == (names if order == "asc" else names[::-1])
        assert sizes == [4, 4, 2]

    async def test_a_thread_of_nothing_else_is_one_empty_page(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), ALICE)
        for number in range(30):
            await store.add_thread_item("t", _hidden(0, number), ALICE)
        statements = Statements(store.database)
        page = await store.items.load_page("t", None, 5, "asc", ALICE, hidden=False)
        assert (page.data, page.has_more, page.after) == ([], False, None)
        assert statements.names == ["list_items_oldest_first"]
        assert len((await store.load_thread_items("t", None, 50, "asc", ALICE)).data) == 30


def _hidden(number: int, other: int) -> ThreadItem:
    common: dict[str, Any] = {"id": f"h{number}-{other}", "thread_id": "t", "created_at": NAIVE, "content": "hidden"}
    return HiddenContextItem(**common) if other % 2 else SDKHiddenContextItem(**common)
