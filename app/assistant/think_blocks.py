"""What a model thinks in its text, between ``<think>`` and ``</think>`` at the head of it, is no part of its answer.

Servers with a parser for it send thoughts by themselves; many (llama.cpp, Ollama, vLLM without one) leave them in the
text. Shown as thoughts, or dropped, they are neither kept in the answer nor sent back to the model.
"""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from openai.types.responses import (
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningSummaryTextDoneEvent,
    ResponseStreamEvent,
)
from openai.types.responses.response_reasoning_item import Summary

ThinkBlocks = Literal["thought", "drop", "text"]
"""Shown as a thought, dropped, or left in the text."""

ENDS_OF_RESPONSES = frozenset({"response.completed", "response.incomplete", "response.failed"})
BEGINS, ENDS = "<think>", "</think>"
_BLOCK = re.compile(r"\s*<think>(.*?)(</think>\s*|\Z)", re.DOTALL)


def without_thought(text: str) -> str:
    return _BLOCK.sub("", text, count=1) if _BLOCK.match(text) else text


def strip_thoughts(output: list[Any]) -> None:
    """Take them out of the messages of a response."""
    for item in output:
        if isinstance(item, ResponseOutputMessage):
            for part in item.content:
                if isinstance(part, ResponseOutputText):
                    part.text = without_thought(part.text)


async def apart(events: AsyncIterator[ResponseStreamEvent], *, are_shown: bool) -> AsyncIterator[ResponseStreamEvent]:
    """The events with thoughts as thoughts, or without them."""
    messages = _Messages(are_shown=are_shown)
    async for event in events:
        for ready in messages.ready_after(event):
            yield ready
    for ready in messages.closed():
        yield ready


class _Messages:
    """Those that were announced and are not done."""

    def __init__(self, *, are_shown: bool) -> None:
        self._are_shown = are_shown
        self._open: dict[str, _Message] = {}

    def ready_after(self, event: Any) -> Iterator[Any]:
        match event:
            case ResponseOutputItemAddedEvent(item=ResponseOutputMessage() as item) if not item.content:
                self._open[item.id] = _Message(event, are_shown=self._are_shown)
                return
            case ResponseOutputItemDoneEvent(item=ResponseOutputMessage() as item):
                if (message := self._open.pop(item.id, None)) is not None:
                    yield from message.closed()
            case _ if event.type in ENDS_OF_RESPONSES:
                yield from self.closed()
            case _:
                message = self._open.get(getattr(event, "item_id", None) or "")
                if message is not None:
                    yield from message.ready_after(event)
                    return
        _strip(event)
        yield event

    def closed(self) -> Iterator[Any]:
        for message in self._open.values():
            yield from message.closed()
        self._open.clear()


def _strip(event: Any) -> None:
    if event.type == "response.output_text.done":
        event.text = without_thought(event.text)
    elif event.type == "response.content_part.done":
        if isinstance(event.part, ResponseOutputText):
            event.part.text = without_thought(event.part.text)
    elif event.type == "response.output_item.done":
        strip_thoughts([event.item])
    elif event.type in ENDS_OF_RESPONSES:
        strip_thoughts(event.response.output)


class _Message:
    """Held back until it is known whether its text begins with a thought, and until that has ended."""

    def __init__(self, announcement: ResponseOutputItemAddedEvent, *, are_shown: bool) -> None:
        self._held: list[Any] = [announcement]
        self._output_index = announcement.output_index
        self._are_shown = are_shown
        self._state: Literal["undecided", "thinking", "after", "speaking"] = "undecided"
        self._text = ""
        """What has come and was not told yet."""
        self._thought = ""
        self._thought_id = f"rs_{secrets.token_hex(12)}"

    def ready_after(self, event: Any) -> Iterator[Any]:
        if self._state == "speaking":
            _strip(event)
            yield event
        elif event.type == "response.output_text.delta":
            self._text += event.delta
            yield from self._ready_after_text(event)
        elif event.type in {"response.output_text.done", "response.content_part.done"}:
            yield from self.closed()
            _strip(event)
            yield event
        else:
            self._held.append(event)

    def _ready_after_text(self, event: Any) -> Iterator[Any]:
        if self._state == "undecided":
            begun = self._text.lstrip()
            if begun.startswith(BEGINS):
                self._state, self._text = "thinking", begun.removeprefix(BEGINS)
                yield from self._thought_begins()
            elif not BEGINS.startswith(begun):
                yield from self._speaks(event, self._text)
        if self._state == "thinking":
            yield from self._think()
        if self._state == "after" and (text := self._text.lstrip()):
            yield from self._speaks(event, text)

    def _think(self) -> Iterator[Any]:
        thought, end, rest = self._text.partition(ENDS)
        if end:
            self._text = rest
            yield from self._thinks(thought)
            yield from self._thought_ends()
            self._state = "after"
            return
        # What may be the beginning of the end waits.
        kept = next((size for size in range(len(ENDS) - 1, 0, -1) if thought.endswith(ENDS[:size])), 0)
        self._text = thought[len(thought) - kept :]
        yield from self._thinks(thought[: len(thought) - kept])

    def _speaks(self, event: Any, text: str) -> Iterator[Any]:
        self._state, self._text = "speaking", ""
        yield from self._held
        self._held.clear()
        event.delta = text
        yield event

    def closed(self) -> Iterator[Any]:
        """What waits, when there is no more."""
        if self._state == "thinking":
            yield from self._thinks(self._text)
            yield from self._thought_ends()
            self._text = ""
        yield from self._held
        self._held.clear()
        self._state = "speaking"

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
