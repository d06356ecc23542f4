"""What the model gets to see of a thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

from chatkit.types import ThreadItem, UserMessageItem

from app.context import RequestContext
from app.store import DatabaseStore

BYTES_PER_TOKEN = 4
"""About what it is for English as stored; other scripts have more bytes in a character, and fewer characters in a
token."""


@dataclass(frozen=True)
class HistoryLimits:
    tokens: int = 32_000
    """Estimated."""
    items: int = 100


async def recent_items(
    store: DatabaseStore, thread_id: str, context: RequestContext, limits: HistoryLimits
) -> Sequence[ThreadItem]:
    """The newest items that fit, oldest first, in one statement; the very newest whatever its size.

    A thread that was cut begins with a user's message, so that no answer stands without its question. A tool call and
    its output are one item.
    """
    found = await store.load_newest_items(
        thread_id, most_items=limits.items, most_bytes=limits.tokens * BYTES_PER_TOKEN, context=context
    )
    if context.turn is not None:
        context.turn.partial_item_ids |= found.partial
    if not found.is_cut:
        return found.items
    return list(dropwhile(lambda item: not isinstance(item, UserMessageItem), found.items)) or found.items
