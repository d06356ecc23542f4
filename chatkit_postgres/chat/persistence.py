"""Persists an assistant's events: finished items are committed before the client sees them, unfinished ones are tracked
for checkpoints."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

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

from chatkit_postgres.attachments import Attachments
from chatkit_postgres.chat.accumulators import accumulator_for
from chatkit_postgres.chat.answer_limit import limited
from chatkit_postgres.chat.generated_images import store_inline_images
from chatkit_postgres.chat.item_ids import ItemIdMapper
from chatkit_postgres.context import RequestContext, Turn
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore


class EventPersister:
    def __init__(self, store: DatabaseStore, attachments: Attachments, *, max_characters: int) -> None:
        self._store = store
        self._attachments = attachments
        self._max_characters = max_characters

    async def persist(
        self, events: AsyncGenerator[ThreadStreamEvent, None], thread: ThreadMetadata, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The events with ids of ours, within the limit of an answer, each saved before it is yielded."""
        async with aclosing(events):
            mapped = ItemIdMapper(self._store, thread, context).map_events(events)
            stored = store_inline_images(mapped, context.files or self._attachments.of(context))
            async for event in limited(stored, self._max_characters):
                await self._save(event, thread, context)
                yield event
            await self._store.publish_answer(thread.id, context)

    async def _save(self, event: ThreadStreamEvent, thread: ThreadMetadata, context: RequestContext) -> None:
        """Save a finished item; apply an update to its accumulator."""
        turn = context.turn
        if turn is None:
            return
        match event:
            case ThreadItemAddedEvent(item=item):
                turn.unfinished[item.id] = accumulator_for(item)
            case ThreadItemUpdatedEvent(item_id=item_id, update=update):
                if (unfinished := turn.unfinished.get(item_id)) is not None:
                    unfinished.apply(update)
                else:
                    await self._change(item_id, update, thread, context, turn)
            case ThreadItemDoneEvent(item=item):
                async with turn.writing:
                    await self._store.add_thread_item(thread.id, item, context)
                    turn.unfinished.pop(item.id, None)
                turn.changing.pop(item.id, None)
            case ThreadItemReplacedEvent(item=item):
                # The SDK saves it; the accumulator was that of the item before.
                turn.changing.pop(item.id, None)
            case ThreadItemRemovedEvent(item_id=item_id):
                async with turn.writing:
                    turn.unfinished.pop(item_id, None)
                turn.changing.pop(item_id, None)
            case _:
                pass

    async def _change(
        self, item_id: str, update: ThreadItemUpdate, thread: ThreadMetadata, context: RequestContext, turn: Turn
    ) -> None:
        """Continue an item of an earlier turn: a workflow after a client tool call, a widget by an action."""
        if (changing := turn.changing.get(item_id)) is None:
            try:
                changing = accumulator_for(await self._store.load_item(thread.id, item_id, context))
            except NotFound:
                # Removed, or never announced: there is nothing to save it to.
                return
            turn.changing[item_id] = changing
        changing.apply(update)
        async with turn.writing:
            if (changed := changing.snapshot()) is not None:
                await self._store.save_item(thread.id, changed, context)
