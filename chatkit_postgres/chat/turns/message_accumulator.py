"""Accumulates the text of a message, and knows how much of it the database has."""

from collections.abc import Callable, Sequence

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ThreadItemUpdate,
)

from chatkit_postgres.chat.turns.accumulators import Changes, ItemAccumulator
from chatkit_postgres.store.partials import LogEntry


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
            case AssistantMessageContentPartAnnotationAdded(content_index=index, annotation_index=at):
                annotations = self._content(index).annotations
                if at < len(annotations):
                    # The log only knows what comes after what was saved.
                    self._revision += 1
                annotations.insert(at, update.annotation)
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
