"""Item ids in a stream are ours, whatever the model calls its messages.

Chat-completions models give every message the id ``__fake_id__``. Each ``added`` event starts a fresh id; the
events after it follow. Ids that the store issued or loaded during this turn are ours already and stay.
"""

from collections.abc import AsyncIterator

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
)

from chatkit_postgres.chat.sanitize import clean_model
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import kind_of
from chatkit_postgres.text import clean_text

logger = get_logger(__name__)

MAX_PARTS = 1000


class ItemIdMapper:
    def __init__(self, store: DatabaseStore, thread: ThreadMetadata, context: RequestContext) -> None:
        self._store = store
        self._thread = thread
        self._context = context
        self._known = context.turn.known_item_ids if context.turn is not None else set[str]()
        self._open: dict[str, str] = {}
        """The model's id to ours, from its ``added`` to its ``done``."""
        self._warned: set[str] = set()
        self._given: dict[str, list[str]] = {}
        """The model's id to every id we gave for it in this turn."""

    async def map_events(self, events: AsyncIterator[ThreadStreamEvent]) -> AsyncIterator[ThreadStreamEvent]:
        async for raw in events:
            event = _clean(raw)
            match event:
                case ThreadItemAddedEvent(item=item):
                    yield ThreadItemAddedEvent(item=self._renamed(item, self._added(item)))
                case ThreadItemDoneEvent(item=item):
                    yield ThreadItemDoneEvent(item=self._renamed(item, self._done(item)))
                case ThreadItemReplacedEvent(item=item):
                    yield ThreadItemReplacedEvent(item=self._renamed(item, self._followed(item)))
                case ThreadItemUpdatedEvent(item_id=item_id, update=update):
                    index = getattr(update, "content_index", 0)
                    if not 0 <= index < MAX_PARTS:
                        # The SDK would fill the message with empty parts up to there.
                        self._warn("update_of_impossible_part", index=index)
                        continue
                    ours = self._open.get(item_id, item_id if item_id in self._known else None)
                    if ours is None:
                        self._warn("update_of_unknown_item", update=event.update.type)
                        continue
                    yield event if ours == item_id else event.model_copy(update={"item_id": ours})
                case ThreadItemRemovedEvent(item_id=item_id):
                    for ours in self._removed(item_id):
                        yield ThreadItemRemovedEvent(item_id=ours)
                case _:
                    yield event

    def _warn(self, what: str, **details: object) -> None:
        """Once a turn: a model that does it once does it with every token."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(what, **details)

    def _fresh(self, item: ThreadItem) -> str:
        ours = self._store.generate_item_id(kind_of(item), self._thread, self._context)
        self._given.setdefault(item.id, []).append(ours)
        return ours

    def _added(self, item: ThreadItem) -> str:
        ours = item.id if item.id in self._known else self._fresh(item)
        self._open[item.id] = ours
        return ours

    def _followed(self, item: ThreadItem) -> str:
        if (ours := self._open.get(item.id)) is not None:
            return ours
        return item.id if item.id in self._known else self._fresh(item)

    def _done(self, item: ThreadItem) -> str:
        ours = self._followed(item)
        self._open.pop(item.id, None)
        return ours

    def _removed(self, item_id: str) -> list[str]:
        self._open.pop(item_id, None)
        return self._given.pop(item_id, [item_id] if item_id in self._known else [])

    def _renamed(self, item: ThreadItem, item_id: str) -> ThreadItem:
        ours = {"id": item_id, "thread_id": self._thread.id}
        return item if (item.id, item.thread_id) == tuple(ours.values()) else item.model_copy(update=ours)


def _clean(event: ThreadStreamEvent) -> ThreadStreamEvent:
    match event:
        case ThreadItemUpdatedEvent(update=AssistantMessageContentPartTextDelta(delta=delta) as update):
            cleaned = clean_text(delta)
            if cleaned is delta:
                return event
            return event.model_copy(update={"update": update.model_copy(update={"delta": cleaned})})
        case _:
            return clean_model(event)
