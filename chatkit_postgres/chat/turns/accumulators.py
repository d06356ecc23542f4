"""Accumulates the updates of items that are still being streamed, so that checkpoints can save them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
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


class _Content:
    """One content part of a message."""

    __slots__ = ("annotations", "saved_annotations", "saved_characters", "saved_deltas", "texts")

    def __init__(self, text: str, annotations: Sequence[Annotation]) -> None:
        # Deltas are joined when they are saved, because appending to a long string copies it.
        self.texts = [text] if text else []
        self.annotations = [*annotations]
        self.saved_deltas = self.saved_characters = self.saved_annotations = 0

    @property
    def is_saved(self) -> bool:
        return self.saved_deltas == len(self.texts) and self.saved_annotations == len(self.annotations)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def so_far(self) -> AssistantMessageContent:
        return AssistantMessageContent(text=self.text, annotations=self.annotations)

    def entries(self, item_id: str, index: int, next_sequence: Callable[[], int]) -> list[LogEntry]:
        found = []
        if text := "".join(self.texts[self.saved_deltas :]):
            found.append(LogEntry(item_id, next_sequence(), index, self.saved_characters, text))
        for number in range(self.saved_annotations, len(self.annotations)):
            annotation = self.annotations[number]
            found.append(LogEntry(item_id, next_sequence(), index, number, annotation=annotation))
        return found

    def mark(self) -> Callable[[], None]:
        """Returns what to call once everything up to now is saved."""
        deltas, annotations = len(self.texts), len(self.annotations)
        characters = self.saved_characters + sum(map(len, self.texts[self.saved_deltas :]))

        def saved() -> None:
            self.saved_deltas, self.saved_characters, self.saved_annotations = deltas, characters, annotations

        return saved


class MessageAccumulator(ItemAccumulator):
    def __init__(self, item: AssistantMessageItem) -> None:
        self._item = item
        self._contents = [_Content(part.text, part.annotations) for part in item.content]
        self._revision = 1
        """Grows when what was saved is no longer the beginning of the message."""
        self._saved_revision = 0

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case AssistantMessageContentPartTextDelta(content_index=index, delta=delta):
                if delta:
                    self._content(index).texts.append(delta)
            case AssistantMessageContentPartAdded() | AssistantMessageContentPartDone():
                before = self._content(update.content_index)
                annotations = update.content.annotations or before.annotations
                if before.text != update.content.text or before.annotations != annotations:
                    self._contents[update.content_index] = _Content(update.content.text, annotations)
                    self._revision += 1
            case AssistantMessageContentPartAnnotationAdded(content_index=index, annotation=annotation):
                self._content(index).annotations.append(annotation)
            case _:
                pass

    def snapshot(self) -> AssistantMessageItem | None:
        contents = [content.so_far() for content in self._contents]
        if not any(content.text.strip() for content in contents):
            return None
        return self._item.model_copy(update={"content": contents})

    @property
    def is_saved(self) -> bool:
        return not self.needs_row and all(content.is_saved for content in self._contents)

    @property
    def needs_row(self) -> bool:
        return self._saved_revision != self._revision and any(content.texts for content in self._contents)

    def changes(self, next_sequence: Callable[[], int]) -> Changes | None:
        if self._saved_revision != self._revision:
            item = self.snapshot()
            return Changes(self._mark(), item=item) if item is not None else None
        entries = [
            entry
            for index, content in enumerate(self._contents)
            for entry in content.entries(self._item.id, index, next_sequence)
        ]
        return Changes(self._mark(), entries=entries) if entries else None

    def _mark(self) -> Callable[[], None]:
        revision, marks = self._revision, [content.mark() for content in self._contents]

        def saved() -> None:
            self._saved_revision = revision
            for content_saved in marks:
                content_saved()

        return saved

    def _content(self, index: int) -> _Content:
        while len(self._contents) <= index:
            self._contents.append(_Content("", ()))
            # The saved row has too few parts for the log.
            self._revision += 1
        return self._contents[index]


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
