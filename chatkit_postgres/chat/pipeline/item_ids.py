"""Maps the item ids of a model to ids of the store.

Chat-completions models give every message the id ``__fake_id__``. Each ``added`` event gets a fresh id, and so do the
events after it. Ids that the store issued or loaded during this turn stay.
"""

from collections.abc import Sequence

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
    UserMessageItem,
)

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.chat.sanitize import clean_model
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import kind_of
from chatkit_postgres.text import clean_text

logger = get_logger(__name__)

MAX_PARTS = 1000


class MapItemIds(Stage):
    def __init__(self, store: DatabaseStore, thread: ThreadMetadata, context: RequestContext) -> None:
        self._store = store
        self._thread = thread
        self._context = context
        session = context.session
        self._known = session.known_item_ids if session is not None else set[str]()
        self._of_users = session.user_message_ids if session is not None else set[str]()
        self._open: dict[str, str] = {}
        """The model's id to ours, from its ``added`` to its ``done``."""
        # Not a set, which takes 200 bytes while it is empty.
        self._warned: frozenset[str] = frozenset()
        self._given: dict[str, list[str]] = {}
        """The model's id to every id we gave for it in this turn."""

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        event = _clean(event)
        match event:
            case ThreadItemUpdatedEvent():
                return self._map_update(event)
            case ThreadItemAddedEvent(item=item):
                return (ThreadItemAddedEvent(item=self._renamed(item, self._added(item))),)
            case ThreadItemDoneEvent(item=item):
                return (ThreadItemDoneEvent(item=self._renamed(item, self._done(item))),)
            case ThreadItemReplacedEvent(item=item):
                return (ThreadItemReplacedEvent(item=self._renamed(item, self._followed(item))),)
            case ThreadItemRemovedEvent(item_id=item_id):
                return [ThreadItemRemovedEvent(item_id=ours) for ours in self._removed(item_id)]
            case _:
                return (event,)

    def _map_update(self, event: ThreadItemUpdatedEvent) -> Sequence[ThreadStreamEvent]:
        index = getattr(event.update, "content_index", 0)
        if not 0 <= index < MAX_PARTS:
            # A client would fill the message with empty parts up to this index.
            self._warn("update_of_impossible_part", index=index)
            return ()
        item_id = event.item_id
        ours = self._open.get(item_id, item_id if item_id in self._known else None)
        if ours is None:
            self._warn("update_of_unknown_item", update=event.update.type)
            return ()
        return (event,) if ours == item_id else (event.model_copy(update={"item_id": ours}),)

    def _warn(self, name: str, **details: object) -> None:
        """Once for each turn: such a model does it with every delta."""
        if name not in self._warned:
            self._warned |= {name}
            logger.warning(name, **details)

    def _fresh(self, item: ThreadItem) -> str:
        ours = self._store.generate_item_id(kind_of(item), self._thread, self._context)
        self._given.setdefault(item.id, []).append(ours)
        return ours

    def _added(self, item: ThreadItem) -> str:
        ours = item.id if self._is_known(item) else self._fresh(item)
        self._open[item.id] = ours
        return ours

    def _followed(self, item: ThreadItem) -> str:
        if (ours := self._open.get(item.id)) is not None:
            return ours
        return item.id if self._is_known(item) else self._fresh(item)

    def _is_known(self, item: ThreadItem) -> bool:
        # Never in the place of what a user has written.
        return item.id in self._known and (isinstance(item, UserMessageItem) or item.id not in self._of_users)

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
