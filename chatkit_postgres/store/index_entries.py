"""The texts by which items and threads are found, as parameters of the statements that write them."""

from collections.abc import Iterator
from typing import Any

from chatkit.types import (
    ClientToolCallItem,
    EndOfTurnItem,
    HiddenContextItem,
    SDKHiddenContextItem,
    ThreadItem,
    UserMessageItem,
    WidgetItem,
)
from pydantic import BaseModel

from chatkit_postgres.store import rows
from chatkit_postgres.store.words import owner_lexeme, tsvector_of

SHOWN_BY_WIDGETS = frozenset({"value", "label", "title", "description", "caption", "alt"})
"""The fields of widgets with text that a user reads."""


def entry_of(owner: str, text: str) -> dict[str, str]:
    """The parameters ``words`` and ``owner_mark`` of ``store/sql/index_entry.py``."""
    return {"words": tsvector_of(text), "owner_mark": owner_lexeme(owner)}


def item_entry(owner: str, item: ThreadItem) -> dict[str, str]:
    return entry_of(owner, searchable_text(item))


def searchable_text(item: ThreadItem) -> str:
    """What the user has written or read: with the names of files, and the texts of a widget."""
    match item:
        # Of a tool call the user reads nothing.
        case HiddenContextItem() | SDKHiddenContextItem() | EndOfTurnItem() | ClientToolCallItem():
            return ""
        case UserMessageItem():
            return "\n".join([rows.plain_text(item), *(attachment.name for attachment in item.attachments)])
        case WidgetItem():
            return item.copy_text or "\n".join(_texts(item.widget))
        case _:
            return rows.plain_text(item)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, BaseModel):
        node = dict(node)
    if isinstance(node, dict):
        for name, field in node.items():
            if isinstance(field, str):
                if name in SHOWN_BY_WIDGETS:
                    yield field
            else:
                yield from _texts(field)
    elif isinstance(node, list | tuple):
        for element in node:
            yield from _texts(element)
