"""The promises of ``chatkit.store.Store``, kept in PostgreSQL."""

from typing import Any

from chatkit.store import Store, StoreItemType
from chatkit.types import ThreadMetadata

from chatkit_postgres.db import Database
from chatkit_postgres.store.attachments import AttachmentRows
from chatkit_postgres.store.detached import DetachedWrites
from chatkit_postgres.store.history import HistoryRows
from chatkit_postgres.store.ids import new_id
from chatkit_postgres.store.items import ItemRows, OutsideWrite
from chatkit_postgres.store.scope import turn_of
from chatkit_postgres.store.threads import ThreadRows
from chatkit_postgres.store.turns import TurnRows


class DatabaseStore(ThreadRows, ItemRows, HistoryRows, TurnRows, AttachmentRows, Store[Any]):
    """Threads, items and attachments under their owner.

    ``DatabaseStore(Database(url))`` needs no running event loop; the first statement connects. Every method
    takes any context that is an object with a ``user_id`` (1 to 255 characters) or a mapping with that key. Our own
    RequestContext adds what a turn needs: the fence, the memory of what was loaded, and the digests that make a
    repeated save free.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.detached = DetachedWrites[OutsideWrite]()

    async def close(self) -> None:
        """Wait for writes whose callers were cancelled, and close the database."""
        await self.detached.wait()
        await self.database.close()

    def generate_thread_id(self, context: Any) -> str:  # noqa: ARG002 - the SDK's signature
        return new_id("thread")

    def generate_item_id(self, item_type: StoreItemType, thread: ThreadMetadata, context: Any) -> str:
        item_id = new_id(item_type)
        turn = turn_of(context, thread.id)
        if turn is not None:
            turn.known_item_ids.add(item_id)
        return item_id
