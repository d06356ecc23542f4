"""Accumulates the updates of items that are still being streamed, so that checkpoints can save them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chatkit.types import (
    Task,
    ThreadItem,
    ThreadItemUpdate,
    WidgetComponentUpdated,
    WidgetItem,
    WidgetRootUpdated,
    WidgetStreamingTextValueDelta,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)
from pydantic import ValidationError

from chatkit_postgres.chat.widget_tree import at_rest, find_component
from chatkit_postgres.store.partials import LogEntry


@dataclass(frozen=True, slots=True)
class Changes:
    """What a checkpoint has to save of an item, and what to call once it is saved."""

    saved: Callable[[], None]
    item: ThreadItem | None = None
    """The item as a whole."""
    entries: Sequence[LogEntry] = ()
    """Otherwise: what is new of a message whose partial row was saved before."""


class ItemAccumulator(ABC):
    """An item that is still being streamed."""

    @abstractmethod
    def apply(self, update: ThreadItemUpdate) -> None: ...

    @abstractmethod
    def snapshot(self) -> ThreadItem | None:
        """The item so far; None while it is empty."""
        ...

    @property
    @abstractmethod
    def is_saved(self) -> bool:
        """Whether the database has all updates so far."""
        ...

    @property
    @abstractmethod
    def needs_row(self) -> bool:
        """Whether the next checkpoint has to save the item as a whole."""
        ...

    @abstractmethod
    def changes(self, next_sequence: Callable[[], int]) -> Changes | None:
        """What the database does not have yet; None if that is nothing."""
        ...


class NothingAccumulated(ItemAccumulator):
    """For items that are saved only when they are finished: their updates are previews."""

    is_saved = True
    needs_row = False

    def apply(self, update: ThreadItemUpdate) -> None:
        pass

    def snapshot(self) -> None:
        return None

    def changes(self, next_sequence: Callable[[], int]) -> None:  # noqa: ARG002 - there are none
        return None


class WholeItemAccumulator(ItemAccumulator):
    """An item that is saved as a whole whenever it has changed."""

    def __init__(self, *, revision: int) -> None:
        self._revision = revision
        self._saved_revision = 0

    @property
    def is_saved(self) -> bool:
        return self._saved_revision == self._revision

    @property
    def needs_row(self) -> bool:
        return not self.is_saved

    def changes(self, next_sequence: Callable[[], int]) -> Changes | None:  # noqa: ARG002 - no entries of a log
        item = None if self.is_saved else self.snapshot()
        revision = self._revision

        def saved() -> None:
            self._saved_revision = revision

        return Changes(saved, item=item) if item is not None else None


class WidgetAccumulator(WholeItemAccumulator):
    def __init__(self, item: WidgetItem) -> None:
        super().__init__(revision=1)
        self._item = item
        self._root: dict[str, Any] = item.widget.model_dump()
        self._last = item

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case WidgetRootUpdated():
                self._root = update.widget.model_dump()
            case WidgetComponentUpdated():
                if (component := find_component(self._root, update.component_id)) is not None:
                    component.clear()
                    component.update(update.component.model_dump())
            case WidgetStreamingTextValueDelta():
                if (component := find_component(self._root, update.component_id)) is not None:
                    component["value"] = str(component.get("value") or "") + update.delta
            case _:
                return
        self._revision += 1

    def snapshot(self) -> WidgetItem:
        fields = {name: value for name, value in self._item if name != "widget"}
        # A component that replaces the root is a valid update, but the result is no widget.
        with suppress(ValidationError):
            self._last = WidgetItem.model_validate(fields | {"widget": at_rest(self._root)})
        return self._last


class WorkflowAccumulator(WholeItemAccumulator):
    def __init__(self, item: WorkflowItem) -> None:
        super().__init__(revision=1 if item.workflow.tasks else 0)
        self._item = item
        self._tasks: list[Task] = [*item.workflow.tasks]

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case WorkflowTaskAdded():
                self._tasks.append(update.task)
            case WorkflowTaskUpdated() if 0 <= update.task_index < len(self._tasks):
                self._tasks[update.task_index] = update.task
            case _:
                return
        self._revision += 1

    def snapshot(self) -> WorkflowItem | None:
        if not self._tasks:
            return None
        # Nothing is loading any more when a snapshot is read.
        tasks = [
            task.model_copy(update={"status_indicator": "none"}) if task.status_indicator == "loading" else task
            for task in self._tasks
        ]
        return self._item.model_copy(update={"workflow": self._item.workflow.model_copy(update={"tasks": tasks})})
