"""Loads the newest items of a thread for a model."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from chatkit.types import (
    AssistantMessageItem,
    GeneratedImageItem,
    TaskItem,
    ThreadItem,
    UserMessageItem,
    WorkflowItem,
)

from chatkit_postgres.db import Database, Row
from chatkit_postgres.store import rows
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.items import view_of
from chatkit_postgres.store.scope import owner_of, turn_of
from chatkit_postgres.store.sql.history import LOAD_NEWEST_ITEMS
from chatkit_postgres.text import cut_mark

_ANSWERS = (AssistantMessageItem, GeneratedImageItem, TaskItem, WorkflowItem)
MAX_CURRENT_ITEMS = 1000
"""What of the answer to the user's newest message is read: some five hundred rounds of client tools."""


@dataclass(frozen=True)
class HistoryLimits:
    """What of a thread is read. The user's newest message, and what answers it, come on top."""

    items: int = 100
    bytes: int = 128_000
    """Of their JSON; a picture, and a widget that says what it shows, count for a line."""

    @property
    def output_characters(self) -> int:
        """The longest output of a client tool; more is cut in its middle."""
        return self.bytes // 4


@dataclass(frozen=True)
class NewestItems:
    items: list[ThreadItem]
    """Oldest first."""
    cut_short: Mapping[str, str]
    """Item id to the state of the turn, for each answer that did not come to its end."""
    without_pictures: AbstractSet[str]
    """Ids of the messages whose pictures a provider has refused."""
    is_cut: bool
    """Whether there are older ones."""


def _without_refused(newest_first: Sequence[Row], thread_id: str) -> list[ThreadItem]:
    """Oldest first, without the answers to messages that were refused, which would stand without their question."""
    items: list[ThreadItem] = []
    is_of_refused = False
    for row in reversed(newest_first):
        if row["is_refused"]:
            is_of_refused = True
            continue
        item = rows.load_item(row, thread_id)
        is_of_refused = is_of_refused and not isinstance(item, UserMessageItem)
        if not (is_of_refused and isinstance(item, _ANSWERS)):
            items.append(item)
    return items


class HistoryRows:
    database: Database

    async def load_newest_items(self, thread_id: str, limits: HistoryLimits, context: Any) -> NewestItems:
        """The newest items within the limits, and in any case the newest message of the user with all that follows it;
        without the messages that were refused."""
        turn = turn_of(context, thread_id)
        found = await self.database.run(
            owner_of(context),
            LOAD_NEWEST_ITEMS,
            session=session_uuid(thread_id),
            # One more, to see whether there are more.
            page=limits.items + 1,
            max_bytes=limits.bytes,
            max_current=MAX_CURRENT_ITEMS,
            max_output=limits.output_characters,
            cut_mark=cut_mark("?"),
            **view_of(turn),
        )
        items = _without_refused(found, thread_id)
        if turn is not None:
            turn.known_item_ids.update(item.id for item in items)
        return NewestItems(
            items=items,
            cut_short={row["item_id"]: row["ended_as"] for row in found if row["ended_as"] is not None},
            without_pictures={row["item_id"] for row in found if row["without_pictures"]},
            is_cut=bool(found) and not found[-1]["is_last"],
        )
