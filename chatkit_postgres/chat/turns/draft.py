"""Draft: the items of an answer that are not finished."""

import asyncio
from itertools import count

from chatkit.types import AssistantMessageItem, ThreadItem, ThreadItemUpdate, WidgetItem, WorkflowItem

from chatkit_postgres.chat.turns.accumulators import (
    Changes,
    ItemAccumulator,
    NothingAccumulated,
    WidgetAccumulator,
    WorkflowAccumulator,
)
from chatkit_postgres.chat.turns.message_accumulator import MessageAccumulator


class Draft:
    def __init__(self) -> None:
        self._unfinished: dict[str, ItemAccumulator] = {}
        """Item id to each item of this turn that was announced and is not done."""
        self.earlier: dict[str, ItemAccumulator] = {}
        """Item id to each item that was stored before this turn updates it."""
        self.lock = asyncio.Lock()
        """Held while an item is saved or removed, and while a checkpoint saves items as a whole, so that it cannot
        bring back what was removed."""
        self._sequence = count(1)

    def begin(self, item: ThreadItem) -> None:
        self._unfinished[item.id] = accumulator_for(item)

    def begin_earlier(self, item: ThreadItem) -> None:
        self.earlier[item.id] = accumulator_for(item)

    def update(self, item_id: str, update: ThreadItemUpdate) -> bool:
        """Apply an update to an unfinished item of this turn. Returns False if there is none of this id."""
        accumulator = self._unfinished.get(item_id)
        if accumulator is None:
            return False
        accumulator.apply(update)
        return True

    def discard(self, item_id: str) -> None:
        """Forget an item that was saved or removed."""
        self._unfinished.pop(item_id, None)
        self.earlier.pop(item_id, None)

    @property
    def needs_row(self) -> bool:
        """Whether an item has to be saved as a whole."""
        return any(accumulator.needs_row for accumulator in self._unfinished.values())

    def snapshots(self) -> list[ThreadItem]:
        """The unfinished items so far, without empty ones."""
        found = [accumulator.snapshot() for accumulator in self._unfinished.values()]
        return [item for item in found if item is not None]

    def changed_items(self) -> list[Changes]:
        """The changes of items that have to be saved as a whole."""
        return self._changes(needs_row=True)

    def new_text(self) -> list[Changes]:
        """The changes of messages whose row was saved before."""
        return self._changes(needs_row=False)

    def _changes(self, *, needs_row: bool) -> list[Changes]:
        return [
            changes
            for accumulator in self._unfinished.values()
            if accumulator.needs_row is needs_row
            and (changes := accumulator.changes(lambda: next(self._sequence))) is not None
        ]


def accumulator_for(item: ThreadItem) -> ItemAccumulator:
    match item:
        case AssistantMessageItem():
            return MessageAccumulator(item)
        case WidgetItem():
            return WidgetAccumulator(item)
        case WorkflowItem():
            return WorkflowAccumulator(item)
        case _:
            return NothingAccumulated()
