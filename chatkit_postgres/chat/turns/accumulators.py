"""Accumulates the updates of items that are still being streamed, so that checkpoints can save them."""

from abc import ABC, abstractmethod
from contextlib import suppress
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


class ItemAccumulator(ABC):
    """An item that is still being streamed."""

    is_saved: bool
    """Whether the database has all updates so far."""

    @abstractmethod
    def apply(self, update: ThreadItemUpdate) -> None: ...

    @abstractmethod
    def snapshot(self) -> ThreadItem | None:
        """The item so far; None while it is empty."""
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

    def apply(self, update: ThreadItemUpdate) -> None:
        pass

    def snapshot(self) -> None:
        return None


class MessageAccumulator(ItemAccumulator):
    def __init__(self, item: AssistantMessageItem) -> None:
        self._item = item
        self._parts = [([part.text], [*part.annotations]) for part in item.content]
        self.is_saved = True

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case AssistantMessageContentPartTextDelta():
                # Deltas are joined when they are saved, because appending to a long string copies it.
                self._part(update.content_index)[0].append(update.delta)
            case AssistantMessageContentPartAdded() | AssistantMessageContentPartDone():
                texts, annotations = self._part(update.content_index)
                texts[:], annotations[:] = [update.content.text], update.content.annotations or annotations
            case AssistantMessageContentPartAnnotationAdded():
                self._part(update.content_index)[1].append(update.annotation)
            case _:
                return
        self.is_saved = False

    def snapshot(self) -> AssistantMessageItem | None:
        content = [AssistantMessageContent(text="".join(texts), annotations=notes) for texts, notes in self._parts]
        if not any(part.text.strip() for part in content):
            return None
        return self._item.model_copy(update={"content": content})

    def _part(self, index: int) -> tuple[list[str], list[Annotation]]:
        while len(self._parts) <= index:
            self._parts.append(([], []))
        return self._parts[index]


class WidgetAccumulator(ItemAccumulator):
    def __init__(self, item: WidgetItem) -> None:
        self._item = item
        self._root: dict[str, Any] = item.widget.model_dump()
        self._last = item
        self.is_saved = False

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
        self.is_saved = False

    def snapshot(self) -> WidgetItem:
        fields = {name: value for name, value in self._item if name != "widget"}
        # A component that replaces the root is a valid update, but the result is no widget.
        with suppress(ValidationError):
            self._last = WidgetItem.model_validate(fields | {"widget": at_rest(self._root)})
        return self._last


class WorkflowAccumulator(ItemAccumulator):
    def __init__(self, item: WorkflowItem) -> None:
        self._item = item
        self._tasks: list[Task] = [*item.workflow.tasks]
        self.is_saved = not self._tasks

    def apply(self, update: ThreadItemUpdate) -> None:
        match update:
            case WorkflowTaskAdded():
                self._tasks.append(update.task)
            case WorkflowTaskUpdated() if 0 <= update.task_index < len(self._tasks):
                self._tasks[update.task_index] = update.task
            case _:
                return
        self.is_saved = False

    def snapshot(self) -> WorkflowItem | None:
        if not self._tasks:
            return None
        # Nothing is loading any more when a snapshot is read.
        tasks = [
            task.model_copy(update={"status_indicator": "none"}) if task.status_indicator == "loading" else task
            for task in self._tasks
        ]
        return self._item.model_copy(update={"workflow": self._item.workflow.model_copy(update={"tasks": tasks})})
