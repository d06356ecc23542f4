"""What an assistant says is kept: what is done before it is told, what is not done yet by checkpoints."""

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
from chatkit_postgres.chat.answer_limit import limited
from chatkit_postgres.chat.own_ids import OwnIds
from chatkit_postgres.chat.pictures import with_stored_pictures
from chatkit_postgres.chat.unfinished import followed
from chatkit_postgres.context import RequestContext, Turn
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore


class AnswerKeeper:
    def __init__(self, store: DatabaseStore, attachments: Attachments, *, longest_answer: int) -> None:
        self._store = store
        self._attachments = attachments
        self._longest_answer = longest_answer

    async def kept(
        self, events: AsyncGenerator[ThreadStreamEvent, None], thread: ThreadMetadata, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """What an assistant says, with ids of ours, within bounds, and saved before it is told."""
        async with aclosing(events):
            own = OwnIds(self._store, thread, context).rewritten(events)
            stored = with_stored_pictures(own, context.files or self._attachments.of(context))
            async for event in limited(stored, self._longest_answer):
                await self._keep(event, thread, context)
                yield event
            await self._store.publish_answer(thread.id, context)

    async def _keep(self, event: ThreadStreamEvent, thread: ThreadMetadata, context: RequestContext) -> None:
        """Save what is done before it is told, and follow what is not done yet for checkpoints."""
        turn = context.turn
        if turn is None:
            return
        match event:
            case ThreadItemAddedEvent(item=item):
                turn.unfinished[item.id] = followed(item)
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
                # The SDK saves it; what was followed before is another item.
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
        """An item that was finished before goes on: a workflow after a client tool call, a widget by an action."""
        if (changing := turn.changing.get(item_id)) is None:
            try:
                changing = followed(await self._store.load_item(thread.id, item_id, context))
            except NotFound:
                # Taken back, or never announced: there is nothing to keep it with.
                return
            turn.changing[item_id] = changing
        changing.apply(update)
        async with turn.writing:
            if (changed := changing.snapshot()) is not None:
                await self._store.save_item(thread.id, changed, context)
