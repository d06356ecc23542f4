"""LiveItems: turns what the database has of a running turn into the events that a follower has not received yet."""

from collections.abc import Sequence

from chatkit.types import (
    Annotation,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdate,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)
from pydantic import ValidationError

from chatkit_postgres.chat.wire import is_hidden
from chatkit_postgres.store.live import LiveItem, LogText


class LiveItems:
    def __init__(self) -> None:
        self._known: dict[str, LiveItem] = {}
        self.replaced_ids: Sequence[str] = ()
        """The items of an old answer, which disappear with the first item of the new one."""
        self._removed_ids: Sequence[str] = ()

    def so_far(self) -> list[ThreadStreamEvent]:
        """The events for somebody who has received none: each item in its present state."""
        removed: list[ThreadStreamEvent] = [ThreadItemRemovedEvent(item_id=item_id) for item_id in self._removed_ids]
        return removed + [event for known in self._known.values() for event in _difference(None, known)]

    def updated(self, items: Sequence[LiveItem]) -> list[ThreadStreamEvent]:
        """The events that lead from the known items to these."""
        items = [found for found in items if not is_hidden(found.item)]
        found_ids = {found.message_id for found in items}
        events: list[ThreadStreamEvent] = []
        if items and self.replaced_ids:
            events += [ThreadItemRemovedEvent(item_id=item_id) for item_id in self.replaced_ids]
            self._removed_ids, self.replaced_ids = self.replaced_ids, ()
        for message_id, known in list(self._known.items()):
            if message_id not in found_ids:
                events.append(ThreadItemRemovedEvent(item_id=known.item.id))
                del self._known[message_id]
        for found in items:
            events += _difference(self._known.get(found.message_id), found)
            self._known[found.message_id] = found
        return events

    def appended(self, entries: Sequence[LogText]) -> list[ThreadStreamEvent]:
        """The events for new entries of the log. What an item has already is skipped."""
        events: list[ThreadStreamEvent] = []
        for entry in entries:
            known = self._known.get(entry.message_id)
            if known is not None and known.is_partial and isinstance(known.item, AssistantMessageItem):
                events += _appended(known.item, entry)
        return events

    def finished(self) -> list[ThreadStreamEvent]:
        """At the end of the turn, what is unfinished stays as it is."""
        return [ThreadItemDoneEvent(item=known.item) for known in self._known.values() if known.is_partial]


def _appended(item: AssistantMessageItem, entry: LogText) -> list[ThreadStreamEvent]:
    """Append an entry to the item, unless it belongs to another state of the item than the known one."""
    index = entry.content_index
    if index >= len(item.content):
        return []
    part = item.content[index]
    if entry.annotation is not None:
        if entry.start != len(part.annotations):
            return []
        try:
            return _annotations(item, index, [Annotation.model_validate(entry.annotation)])
        except ValidationError:
            # Of a kind that only newer code knows; the finished item has it.
            return []
    text = entry.text[len(part.text) - entry.start :] if entry.start <= len(part.text) else ""
    if not text:
        return []
    part.text += text
    return [_delta(item, index, text)]


def _difference(known: LiveItem | None, found: LiveItem) -> list[ThreadStreamEvent]:
    item = found.item
    if known is None:
        return [ThreadItemAddedEvent(item=item) if found.is_partial else ThreadItemDoneEvent(item=item)]
    if known.is_partial and not found.is_partial:
        return [ThreadItemDoneEvent(item=item)]
    if known.item == item:
        return []
    return _growth(known.item, item) or [ThreadItemReplacedEvent(item=item)]


def _growth(known: ThreadItem, item: ThreadItem) -> list[ThreadStreamEvent]:
    """The deltas that lead from one message to another; none if they do not."""
    if not isinstance(known, AssistantMessageItem) or not isinstance(item, AssistantMessageItem):
        return []
    if len(known.content) != len(item.content):
        return []
    events: list[ThreadStreamEvent] = []
    for index, (before, after) in enumerate(zip(known.content, item.content, strict=True)):
        count = len(before.annotations)
        if not after.text.startswith(before.text) or after.annotations[:count] != before.annotations:
            return []
        if text := after.text[len(before.text) :]:
            events.append(_delta(item, index, text))
        events += _annotations(known, index, after.annotations[count:])
    return events


def _delta(item: ThreadItem, index: int, text: str) -> ThreadStreamEvent:
    return _update(item, AssistantMessageContentPartTextDelta(content_index=index, delta=text))


def _annotations(item: AssistantMessageItem, index: int, annotations: Sequence[Annotation]) -> list[ThreadStreamEvent]:
    """Add annotations to a part of the item."""
    events = []
    for annotation in annotations:
        known = item.content[index].annotations
        events.append(
            _update(
                item,
                AssistantMessageContentPartAnnotationAdded(
                    content_index=index, annotation_index=len(known), annotation=annotation
                ),
            )
        )
        known.append(annotation)
    return events


def _update(item: ThreadItem, update: ThreadItemUpdate) -> ThreadStreamEvent:
    return ThreadItemUpdatedEvent(item_id=item.id, update=update)
