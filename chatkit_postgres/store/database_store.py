"""DatabaseStore: ``chatkit.store.Store`` on PostgreSQL."""

from typing import Any

from chatkit.store import Store, StoreItemType
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata

from chatkit_postgres.db import Database
from chatkit_postgres.store.approvals import ApprovalRepository
from chatkit_postgres.store.attachments import AttachmentRepository
from chatkit_postgres.store.caller import Caller, session_of
from chatkit_postgres.store.history import HistoryRepository
from chatkit_postgres.store.ids import new_id
from chatkit_postgres.store.item_writer import ItemWriter
from chatkit_postgres.store.items import ItemRepository
from chatkit_postgres.store.limits import LimitRepository
from chatkit_postgres.store.live import LiveRepository
from chatkit_postgres.store.partials import PartialRepository
from chatkit_postgres.store.search import SearchRepository
from chatkit_postgres.store.search_index import SearchIndex
from chatkit_postgres.store.threads import ThreadRepository
from chatkit_postgres.store.tool_calls import ToolCallRepository
from chatkit_postgres.store.turns import TurnRepository


# Any, so that it fits a ChatKitServer of any context.
class DatabaseStore(Store[Any]):
    """Threads, items and attachments under their owner.

    ``DatabaseStore(Database(url))`` needs no running event loop; the first statement connects. The context of every
    method is any object with a ``user_id`` (1 to 255 characters), or a mapping with that key. A RequestContext adds
    what a turn needs: the fence, the columns that were loaded, and the digests by which repeated saves are skipped.

    The methods are those of the SDK's Store; everything else is in the repositories.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.threads = ThreadRepository(database)
        self.items = ItemRepository(database)
        self.writer = ItemWriter(database, self.items)
        self.history = HistoryRepository(database)
        self.turns = TurnRepository(database)
        self.partials = PartialRepository(database)
        self.live = LiveRepository(database)
        self.limits = LimitRepository(database)
        self.tool_calls = ToolCallRepository(database)
        self.approvals = ApprovalRepository(database)
        self.search_index = SearchIndex(database)
        self.search = SearchRepository(database, self.search_index)
        self.attachments = AttachmentRepository(database)

    async def close(self) -> None:
        """Wait for writes whose callers were cancelled, and close the database."""
        await self.writer.detached.wait()
        await self.database.close()

    def generate_thread_id(self, context: Caller) -> str:  # noqa: ARG002 - the SDK's signature
        return new_id("thread")

    def generate_item_id(self, item_type: StoreItemType, thread: ThreadMetadata, context: Caller) -> str:
        item_id = new_id(item_type)
        session = session_of(context, thread.id)
        if session is not None:
            session.known_item_ids.add(item_id)
        return item_id

    async def load_thread(self, thread_id: str, context: Caller) -> ThreadMetadata:
        return await self.threads.load(thread_id, context)

    async def save_thread(self, thread: ThreadMetadata, context: Caller) -> None:
        await self.threads.save(thread, context)

    async def load_threads(
        self, limit: int | None, after: str | None, order: str, context: Caller
    ) -> Page[ThreadMetadata]:
        return await self.threads.load_page(limit, after, order, context)

    async def delete_thread(self, thread_id: str, context: Caller) -> None:
        await self.threads.delete(thread_id, context)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int | None, order: str, context: Caller
    ) -> Page[ThreadItem]:
        return await self.items.load_page(thread_id, after, limit, order, context)

    async def load_item(self, thread_id: str, item_id: str, context: Caller) -> ThreadItem:
        return await self.items.load(thread_id, item_id, context)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Caller) -> None:
        await self.writer.add(thread_id, item, context)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Caller) -> None:
        await self.writer.save(thread_id, item, context)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Caller) -> None:
        await self.writer.delete(thread_id, item_id, context)

    async def save_attachment(self, attachment: Attachment, context: Caller) -> None:
        await self.attachments.save(attachment, context)

    async def load_attachment(self, attachment_id: str, context: Caller) -> Attachment:
        return await self.attachments.load(attachment_id, context)

    async def delete_attachment(self, attachment_id: str, context: Caller) -> None:
        await self.attachments.delete(attachment_id, context)
