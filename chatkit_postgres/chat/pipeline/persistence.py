"""Persists the items of an answer: finished items are committed before the client sees them, unfinished ones are
collected in the draft for checkpoints."""

from collections.abc import Sequence

from chatkit.types import (
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdate,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
)

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore


class PersistItems(Stage):
    def __init__(self, store: DatabaseStore, thread: ThreadMetadata, context: RequestContext, draft: Draft) -> None:
        self._store = store
        self._thread_id = thread.id
        self._context = context
        self._draft = draft

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        draft = self._draft
        match event:
            case ThreadItemUpdatedEvent(item_id=item_id, update=update):
                if not draft.update(item_id, update):
                    await self._update_earlier(item_id, update)
            case ThreadItemAddedEvent(item=item):
                draft.begin(item)
            case ThreadItemDoneEvent(item=item):
                # An item may be done twice, and the client shows the last one.
                save = self._store.save_item if self._is_committed(item.id) else self._store.add_thread_item
                async with draft.lock:
                    await save(self._thread_id, item, self._context)
                    draft.discard(item.id)
            case ThreadItemReplacedEvent(item=item):
                async with draft.lock:
                    await self._store.save_item(self._thread_id, item, self._context)
                    draft.discard(item.id)
            case ThreadItemRemovedEvent(item_id=item_id):
                async with draft.lock:
                    draft.discard(item_id)
                    await self._store.delete_thread_item(self._thread_id, item_id, self._context)
            case _:
                pass
        return (event,)

    async def finish(self) -> Sequence[ThreadStreamEvent]:
        await self._store.writer.publish_answer(self._thread_id, self._context)
        return ()

    def _is_committed(self, item_id: str) -> bool:
        session = self._context.session
        return session is not None and item_id in session.committed

    async def _update_earlier(self, item_id: str, update: ThreadItemUpdate) -> None:
        """Update an item that is stored: of an earlier turn, as a workflow after a client tool call or a widget by an
        action; or one that was replaced."""
        draft = self._draft
        if item_id not in draft.earlier:
            try:
                item = await self._store.load_item(self._thread_id, item_id, self._context)
            except NotFound:
                # Removed, or never announced: there is nothing to save the update to.
                return
            draft.begin_earlier(item)
        draft.earlier[item_id].apply(update)
        async with draft.lock:
            if (changed := draft.earlier[item_id].snapshot()) is not None:
                await self._store.save_item(self._thread_id, changed, self._context)
