"""Finds items and titles by their words, for the owner alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from chatkit_postgres.db import Database, Row
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store import cursors, rows
from chatkit_postgres.store.caller import Caller, owner_of
from chatkit_postgres.store.cursors import page_size
from chatkit_postgres.store.ids import owner_uuid, session_uuid
from chatkit_postgres.store.index_entries import searchable_text
from chatkit_postgres.store.search_index import SearchIndex
from chatkit_postgres.store.search_query import parse_query
from chatkit_postgres.store.snippets import MAX_CHARACTERS, snippet_of
from chatkit_postgres.store.sql import search as sql
from chatkit_postgres.store.sql.index_entry import WEEK_SECONDS
from chatkit_postgres.store.words import owner_lexeme, quoted

WINDOWS = (2, 6, 24, 96)
"""Weeks, the newest first; then all older ones."""

MAX_OF_PAGE, MIN_CHARACTERS = 200_000, 1000
"""Characters of all texts of a page that are looked through for matches, and of each one in any case."""

LAST_UUID = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Hit:
    thread_id: str
    item_id: str | None
    """None if the title was found."""
    title: str | None
    """The thread's."""
    snippet: str
    """HTML, in which only the marks of the matches are elements."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Hits:
    data: list[Hit]
    has_more: bool
    after: str | None


class SearchRepository:
    def __init__(self, database: Database, index: SearchIndex) -> None:
        self._database = database
        self._index = index

    async def search(
        self,
        text: str,
        caller: Caller,
        *,
        limit: int | None = None,
        after: str | None = None,
        except_thread: str | None = None,
    ) -> Hits:
        """The newest first. ``after`` is a page's ``after``; ``except_thread`` the id of a thread in which nothing is
        found. Raises Unprocessable for an empty or too long query, and for an ``after`` that is of no page of the
        owner's."""
        owner, size, query = owner_of(caller), page_size(limit), parse_query(text)
        list_id = uuid5(owner_uuid(owner), "search")
        before_time, before = _place(list_id, after)
        if query.finds_nothing:
            return Hits([], has_more=False, after=None)
        await self._index.catch_up(owner)
        windows = _windows(owner, before_time)
        asked = {
            "windows": [window for window, _ in windows],
            "starts": [start for _, start in windows],
            "query": query.tsquery(),
            "before_time": before_time,
            "before": before,
            "page": size + 1,
            "except_session": session_uuid(except_thread) if except_thread is not None else None,
        }

        async def work(transaction: Transaction) -> Sequence[Row]:
            await transaction.fetch(sql.WITHOUT_COMPILING, [])
            return await transaction.run(owner, sql.SEARCH, **asked)

        found = await self._database.run_transaction("search", work)
        hits, left = [], MAX_OF_PAGE
        for row in found[:size]:
            if row["item_id"] is None:
                shown = row["title"] or ""
            else:
                shown = searchable_text(rows.load_item(row, row["thread_id"]))
            room = min(MAX_CHARACTERS, max(MIN_CHARACTERS, left))
            snippet, left = snippet_of(shown, query, room), left - min(len(shown), room)
            # Long texts take milliseconds, in which a turn would wait.
            await asyncio.sleep(0)
            hits.append(Hit(row["thread_id"], row["item_id"], row["title"], snippet, row["created_at"]))
        if len(found) <= size:
            return Hits(hits, has_more=False, after=None)
        last = found[size - 1]
        after = cursors.encode(list_id, str(last["place"]), cursors.place_of(last["created_at"]))
        return Hits(hits, has_more=True, after=after)


def _place(list_id: UUID, after: str | None) -> tuple[datetime, UUID]:
    if after is None:
        # A clock may be ahead.
        return datetime.now(UTC) + timedelta(days=1), LAST_UUID
    cursor = cursors.decode(list_id, after)
    time = cursors.time_at(cursor.place)
    try:
        if time is not None:
            return time, UUID(cursor.row_id)
    except ValueError:
        pass
    raise Unprocessable("after: this is no page of a search.")


def _windows(owner: str, before: datetime) -> list[tuple[str, str]]:
    """The tsquery of each window, and the time at which it begins."""
    mark = owner_lexeme(owner)
    end = int(before.timestamp() // WEEK_SECONDS) + 1
    windows = []
    for weeks in WINDOWS:
        # See sql/search.py for the two weeks more.
        lexemes = " | ".join(quoted(f"{mark}#{week}") for week in range(end - weeks - 1, end + 1))
        end -= weeks
        windows.append((lexemes, datetime.fromtimestamp(end * WEEK_SECONDS, UTC).isoformat()))
    return [*windows, (quoted(mark), "-infinity")]
