"""Reads, lists and renames threads, and lists their items."""

from chatkit.server import DEFAULT_PAGE_SIZE
from chatkit.types import ItemsListParams, Page, Thread, ThreadItem, ThreadListParams, ThreadUpdateParams

from chatkit_postgres.chat.wire import thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore


async def get_thread(store: DatabaseStore, thread_id: str, context: RequestContext) -> Thread:
    """The thread with the first page of its items."""
    thread = await store.load_thread(thread_id, context)
    items = await store.items.load_page(thread_id, None, DEFAULT_PAGE_SIZE, "asc", context, hidden=False)
    return thread_response(thread, items)


async def list_threads(store: DatabaseStore, params: ThreadListParams, context: RequestContext) -> Page[Thread]:
    page = await store.load_threads(params.limit or DEFAULT_PAGE_SIZE, params.after, params.order, context)
    return Page(data=[thread_response(thread) for thread in page.data], has_more=page.has_more, after=page.after)


async def update_thread(store: DatabaseStore, params: ThreadUpdateParams, context: RequestContext) -> Thread:
    thread = await store.load_thread(params.thread_id, context)
    thread.title = params.title
    await store.save_thread(thread, context)
    return thread_response(thread)


async def list_items(store: DatabaseStore, params: ItemsListParams, context: RequestContext) -> Page[ThreadItem]:
    """Raises NotFound for a thread that is absent or somebody else's."""
    page = await store.items.load_page(
        params.thread_id, params.after, params.limit or DEFAULT_PAGE_SIZE, params.order, context, hidden=False
    )
    if not page.data:
        # The store returns an empty page for an absent thread.
        await store.load_thread(params.thread_id, context)
    return page
