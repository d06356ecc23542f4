"""Separates thoughts, between ``<think>`` and ``</think>`` at the head of a text, from the answer.

Servers with a parser for thoughts send them in events of their own; many (llama.cpp, Ollama, vLLM without one) leave
them in the text. A separated thought is shown as such or dropped; it is neither part of the answer nor sent back to the
model.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from openai.types.responses import (
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningSummaryTextDoneEvent,
)
from openai.types.responses.response_reasoning_item import Summary

ThinkBlocks = Literal["thought", "drop", "text"]
"""Shown as a thought, dropped, or left in the text."""

ENDS_OF_RESPONSES = frozenset({"response.completed", "response.incomplete", "response.failed"})
TEXT_DELTA = "response.output_text.delta"
ENDS_OF_TEXTS = frozenset({"response.output_text.done", "response.content_part.done"})
BEGINS, ENDS = "<think>", "</think>"
_BLOCK = re.compile(r"\s*<think>(.*?)(</think>\s*|\Z)", re.DOTALL)


def without_thought(text: str) -> str:
    return _BLOCK.sub("", text, count=1) if _BLOCK.match(text) else text


def strip_thoughts(output: Iterable[Any], *, stripped: dict[int, Any] | None = None) -> None:
    """Remove the thought at the head of each message of a response, once."""
    for item in output:
        if isinstance(item, ResponseOutputMessage):
            first = next((part for part in item.content if isinstance(part, ResponseOutputText)), None)
            _strip_part(first, {} if stripped is None else stripped)


def _strip_part(part: Any, stripped: dict[int, Any]) -> None:
    """Strip a part once, as the SDK reuses it in several events; ``stripped`` holds it, so that its id stays unique."""
    if isinstance(part, ResponseOutputText) and id(part) not in stripped:
        stripped[id(part)] = part
        part.text = without_thought(part.text)


class ThoughtSeparator:
    """Makes reasoning events of the thoughts in the messages of one response, or removes them.

    It holds the messages that were announced, and whose answer text has not begun yet.
    """

    def __init__(self, *, are_shown: bool) -> None:
        self._are_shown = are_shown
        self._open: dict[str, _Message] = {}
        self._stripped: dict[int, Any] = {}

    def after(self, event: Any) -> Iterable[Any]:
        """The events to send when this one has arrived."""
        if event.type == TEXT_DELTA and event.item_id not in self._open:
            # The usual event: a delta of a message whose text has begun.
            return (event,)
        return self._after(event)

    def at_end(self) -> Iterator[Any]:
        """The events to send when none follows."""
        for message in self._open.values():
            yield from message.closed()
        self._open.clear()

    def _after(self, event: Any) -> Iterator[Any]:
        match event:
            case ResponseOutputItemAddedEvent(item=ResponseOutputMessage() as item) if not _has_text(item):
                self._open[item.id] = _Message(event, are_shown=self._are_shown)
                return
            case ResponseOutputItemDoneEvent(item=ResponseOutputMessage() as item):
                if (message := self._open.pop(item.id, None)) is not None:
                    yield from message.closed()
            case _ if event.type in ENDS_OF_RESPONSES:
                yield from self.at_end()
            case _:
                message_id = getattr(event, "item_id", None) or ""
                if (message := self._open.get(message_id)) is not None:
                    if event.type not in ENDS_OF_TEXTS:
                        yield from message.ready_after(event)
                        if message.is_answering:
                            del self._open[message_id]
                        return
                    yield from self._open.pop(message_id).closed()
        self._strip(event)
        yield event

    def _strip(self, event: Any) -> None:
        if event.type == "response.output_text.done" and event.content_index == 0:
            event.text = without_thought(event.text)
        elif event.type == "response.content_part.done" and event.content_index == 0:
            _strip_part(event.part, self._stripped)
        elif event.type == "response.output_item.done":
            strip_thoughts([event.item], stripped=self._stripped)
        elif event.type in ENDS_OF_RESPONSES:
            strip_thoughts(event.response.output, stripped=self._stripped)


def _has_text(message: ResponseOutputMessage) -> bool:
    return any(not isinstance(part, ResponseOutputText) or part.text for part in message.content)


class _Message:
    """Holds a message's events until its text is known to begin without a thought, or the thought has ended."""

    def __init__(self, announcement: ResponseOutputItemAddedEvent, *, are_shown: bool) -> None:
        self._held: list[Any] = [announcement]
        self._output_index = announcement.output_index
        self._are_shown = are_shown
        self._state: Literal["undecided", "thinking", "after", "answering"] = "undecided"
        self._text = ""
        """Text that was received and not passed on yet."""
        self._delta: Any = None
        self._thought = ""
        self._thought_id = f"rs_{secrets.token_hex(12)}"

    @property
    def is_answering(self) -> bool:
        return self._state == "answering"

    def ready_after(self, event: Any) -> Iterator[Any]:
        if event.type == TEXT_DELTA:
            self._text += event.delta
            self._delta = event
            yield from self._ready_after_text(event)
        else:
            self._held.append(event)

    def _ready_after_text(self, event: Any) -> Iterator[Any]:
        if self._state == "undecided":
            begun = self._text.lstrip()
            if begun.startswith(BEGINS):
                self._state, self._text = "thinking", begun.removeprefix(BEGINS)
                yield from self._thought_begins()
            elif not BEGINS.startswith(begun):
                yield from self._begin_answer(event, self._text)
        if self._state == "thinking":
            yield from self._think()
        if self._state == "after" and (text := self._text.lstrip()):
            yield from self._begin_answer(event, text)

    def _think(self) -> Iterator[Any]:
        thought, end, rest = self._text.partition(ENDS)
        if end:
            self._text = rest
            yield from self._thinks(thought)
            yield from self._thought_ends()
            self._state = "after"
            return
        # The end of the text may be the beginning of the end tag, and is held then.
        held = next((size for size in range(len(ENDS) - 1, 0, -1) if thought.endswith(ENDS[:size])), 0)
        self._text = thought[len(thought) - held :]
        yield from self._thinks(thought[: len(thought) - held])

    def _begin_answer(self, event: Any, text: str) -> Iterator[Any]:
        self._state, self._text = "answering", ""
        yield from self._held
        self._held.clear()
        event.delta = text
        yield event

    def closed(self) -> Iterator[Any]:
        """The events that are still held when the message ends."""
        if self._state == "thinking":
            yield from self._thinks(self._text)
            yield from self._thought_ends()
            self._text = ""
        if self._state == "undecided" and self._text and self._delta is not None:
            yield from self._begin_answer(self._delta, self._text)
        yield from self._held
        self._held.clear()
        self._state = "answering"

    def _thought_begins(self) -> Iterator[Any]:
        if self._are_shown:
            item = ResponseReasoningItem(id=self._thought_id, type="reasoning", summary=[])
            yield ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=item, output_index=self._output_index, sequence_number=0
            )

    def _thinks(self, text: str) -> Iterator[Any]:
        if not self._thought:
            text = text.lstrip()
        self._thought += text
        if self._are_shown and text:
            yield ResponseReasoningSummaryTextDeltaEvent(
                type="response.reasoning_summary_text.delta",
                delta=text,
                item_id=self._thought_id,
                output_index=self._output_index,
                summary_index=0,
                sequence_number=0,
            )

    def _thought_ends(self) -> Iterator[Any]:
        if not self._are_shown:
            return
        yield ResponseReasoningSummaryTextDoneEvent(
            type="response.reasoning_summary_text.done",
            text=self._thought,
            item_id=self._thought_id,
            output_index=self._output_index,
            summary_index=0,
            sequence_number=0,
        )
        summary = [Summary(type="summary_text", text=self._thought)]
        item = ResponseReasoningItem(id=self._thought_id, type="reasoning", summary=summary)
        yield ResponseOutputItemDoneEvent(
            type="response.output_item.done", item=item, output_index=self._output_index, sequence_number=0
        )
