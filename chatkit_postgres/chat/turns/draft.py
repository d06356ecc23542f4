"""Draft: the items of an answer that are not finished."""

import asyncio
from collections.abc import Awaitable, Callable

from chatkit.types import ThreadItem, ThreadItemUpdate

from chatkit_postgres.chat.turns.accumulators import ItemAccumulator, accumulator_for


class Draft:
    def __init__(self) -> None:
        self._unfinished: dict[str, ItemAccumulator] = {}
        """Item id to each item of this turn that was announced and is not done."""
        self.earlier: dict[str, ItemAccumulator] = {}
        """Item id to each item of an earlier turn that this one updates."""
        self.lock = asyncio.Lock()
        """Held while an item is saved or removed, so that a checkpoint cannot bring it back."""

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
    def is_saved(self) -> bool:
        return all(accumulator.is_saved for accumulator in self._unfinished.values())

    def snapshots(self) -> list[ThreadItem]:
        """The unfinished items so far, without empty ones."""
        found = [accumulator.snapshot() for accumulator in self._unfinished.values()]
        return [item for item in found if item is not None]

    async def checkpoint(self, save: Callable[[ThreadItem], Awaitable[None]]) -> bool:
        """Save the items that have changed since the last checkpoint. Returns whether there were any."""
        has_saved = False
        async with self.lock:
            for accumulator in list(self._unfinished.values()):
                snapshot = None if accumulator.is_saved else accumulator.snapshot()
                if snapshot is not None:
                    accumulator.is_saved = True
                    try:
                        await save(snapshot)
                    except BaseException:
                        accumulator.is_saved = False
                        raise
                    has_saved = True
        return has_saved
