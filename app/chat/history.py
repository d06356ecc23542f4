"""What the model gets to see of a thread."""

from collections.abc import Sequence
from itertools import dropwhile

from chatkit.types import ThreadItem, UserMessageItem

from app.context import RequestContext
from app.store import DatabaseStore

MOST_ITEMS = 100


async def recent_items(store: DatabaseStore, thread_id: str, context: RequestContext) -> Sequence[ThreadItem]:
    """The newest items, oldest first, in one statement. A thread that was cut begins with a user's message, so
    that no answer stands without its question and no tool output without its call."""
    page = await store.load_thread_items(thread_id, None, MOST_ITEMS, "desc", context)
    items = page.data[::-1]
    if not page.has_more:
        return items
    return list(dropwhile(lambda item: not isinstance(item, UserMessageItem), items)) or items
