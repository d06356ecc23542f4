"""Loads the newest items of a thread for a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from chatkit_postgres.store.caller import Caller, owner_of, session_of
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.sql.history import LOAD_NEWEST_ITEMS
from chatkit_postgres.store.tool_calls import ToolCall
from chatkit_postgres.store.views import view_of
from chatkit_postgres.text import cut_mark

_ANSWERS = (AssistantMessageItem, GeneratedImageItem, TaskItem, WorkflowItem)
MAX_CALLS = 200
"""Maximum calls of tools that are given to a model again."""
MAX_CURRENT_ITEMS = 1000
"""Maximum items that answer the user's newest message: some five hundred rounds of client tools."""


@dataclass(frozen=True)
class HistoryLimits:
    """Limits of the older part of a thread. The user's newest message and its answer are read in addition."""

    items: int = 100
    bytes: int = 128_000
    """Maximum bytes of their JSON; an image, and a widget with a text of its own, count as one line."""
    call_bytes: int = 32_000
    """Maximum bytes of the calls of tools and their outputs; 0: none."""

    @property
    def output_characters(self) -> int:
        """Maximum length of a client tool's output; a longer one is cut in its middle."""
        return self.bytes // 4

    @property
    def call_output_characters(self) -> int:
        """Maximum length of the output of another tool."""
        return self.call_bytes // 4


@dataclass(frozen=True)
class NewestItems:
    items: list[ThreadItem]
    """Oldest first."""
    cut_short: Mapping[str, str]
    """Item id to the state of its turn, for each answer that did not reach its end."""
    without_images: set[str]
    """Ids of the messages whose images a provider has refused."""
    is_cut: bool
    """Whether the thread has older items."""
    last_agent: str | None
    """The name of the agent that sent the newest of them that an agent has sent."""
    calls: Mapping[str | None, list[ToolCall]] = field(default_factory=dict)
    """The calls of tools by the id of the item that follows them; None: they follow the last item."""


def _without_refused(
    newest_first: Sequence[Row], thread_id: str
) -> tuple[list[ThreadItem], dict[str | None, list[ToolCall]]]:
    """Oldest first, without refused messages and their answers."""
    items: list[ThreadItem] = []
    calls: dict[str | None, list[ToolCall]] = {}
    waiting: list[ToolCall] = []
    is_of_refused = False
    for row in reversed(newest_first):
        if row["is_refused"]:
            is_of_refused = True
            continue
        if row["name"] is not None:
            waiting += [] if is_of_refused else [_call(row)]
            continue
        item = rows.load_item(row, thread_id)
        is_of_refused = is_of_refused and not isinstance(item, UserMessageItem)
        if not (is_of_refused and isinstance(item, _ANSWERS)):
            items.append(item)
            if waiting:
                calls[item.id], waiting = waiting, []
    if waiting:
        calls[None] = waiting
    return items, calls


def _call(row: Row) -> ToolCall:
    return ToolCall(
        id=f"{row['position']}-{row['sequence']}",
        name=row["name"],
        arguments=row["arguments"],
        output=row["output"],
        is_function=row["is_function"],
    )


class HistoryRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_newest(self, thread_id: str, limits: HistoryLimits, caller: Caller) -> NewestItems:
        """The newest items within the limits, and in any case the user's newest message with all items after it;
        without the messages that were refused."""
        session = session_of(caller, thread_id)
        found = await self._database.run(
            owner_of(caller),
            LOAD_NEWEST_ITEMS,
            session=session_uuid(thread_id),
            # One more, to know whether there are older items.
            page=limits.items + 1,
            max_bytes=limits.bytes,
            max_current=MAX_CURRENT_ITEMS,
            max_output=limits.output_characters,
            max_calls=MAX_CALLS,
            max_call_bytes=limits.call_bytes,
            max_call_output=limits.call_output_characters,
            cut_mark=cut_mark("?"),
            **view_of(session),
        )
        items, calls = _without_refused(found, thread_id)
        of_items = [row for row in found if row["name"] is None]
        if session is not None:
            session.know(*items)
        return NewestItems(
            items=items,
            cut_short={row["item_id"]: row["ended_as"] for row in found if row["ended_as"] is not None},
            without_images={row["item_id"] for row in found if row["without_images"]},
            is_cut=bool(of_items) and not of_items[-1]["is_last"],
            last_agent=next((row["sender_name"] for row in found if row["sender_name"] is not None), None),
            calls=calls,
        )
