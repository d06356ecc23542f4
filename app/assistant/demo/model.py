"""A model that needs no network and no key, so that the whole path can be tried on a laptop.

It answers through the same interface as a real one: it streams Markdown word by word, sees the whole
conversation, and calls one of the agent's tools when it is asked for the time.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

from agents import ModelResponse, TResponseInputItem, Usage
from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.models.interface import Model
from agents.tool import FunctionTool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from app.assistant.converter import NOTE_BEGINS

SECONDS_PER_WORD = 0.01
TOOL = "current_time"
ASKS_FOR_TIME = re.compile(r"\b(time|date|clock)\b", re.IGNORECASE)

WELCOME = """\
You said: **{said}**

I am the built-in demo model: no key, no network. The rest is real: this answer is streamed, and it was saved to \
PostgreSQL before you saw it as done.

- Reload, or restart the server: the conversation is still here.
- Switch to another user: it is not there.
- Ask *what time is it*, and I call a tool.

```bash
export OPENAI_API_KEY=...   # and a real model answers
```

This is message number {number} of yours."""


class DemoModel(Model):
    def __init__(self, seconds_per_word: float = SECONDS_PER_WORD) -> None:
        self.seconds_per_word = seconds_per_word

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        async for event in self.stream_response(*args, **kwargs):
            if isinstance(event, ResponseCompletedEvent):
                return ModelResponse(output=event.response.output, usage=Usage(), response_id=None)
        raise AssertionError("unreachable: a stream ends with its completion")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: Any,
        tools: Sequence[Any],
        *_: Any,
        **__: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        conversation = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
        can_tell_time = any(isinstance(tool, FunctionTool) and tool.name == TOOL for tool in tools)
        said = _said(conversation)
        if _output_of_tool(conversation) is None and can_tell_time and ASKS_FOR_TIME.search(said[-1]):
            call = ResponseFunctionToolCall(
                id=_id("fc"), call_id=_id("call"), type="function_call", name=TOOL, arguments="{}"
            )
            yield ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=call, output_index=0, sequence_number=0
            )
            yield ResponseOutputItemDoneEvent(
                type="response.output_item.done", item=call, output_index=0, sequence_number=1
            )
            yield _completed([call], conversation, 0)
            return
        async for event in self._message(_answer(conversation, said), conversation):
            yield event

    async def _message(self, text: str, conversation: Sequence[Any]) -> AsyncIterator[TResponseStreamEvent]:
        message = ResponseOutputMessage(
            id=_id("msg"), type="message", role="assistant", status="in_progress", content=[]
        )
        part = ResponseOutputText(type="output_text", text="", annotations=[], logprobs=[])
        yield ResponseOutputItemAddedEvent(
            type="response.output_item.added", item=message, output_index=0, sequence_number=0
        )
        yield ResponseContentPartAddedEvent(
            type="response.content_part.added",
            item_id=message.id,
            output_index=0,
            content_index=0,
            part=part,
            sequence_number=1,
        )
        words = re.findall(r"\s*\S+|\s+$", text)
        for number, word in enumerate(words, start=2):
            await asyncio.sleep(self.seconds_per_word)
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta",
                item_id=message.id,
                output_index=0,
                content_index=0,
                delta=word,
                logprobs=[],
                sequence_number=number,
            )
        done = message.model_copy(update={"status": "completed", "content": [part.model_copy(update={"text": text})]})
        yield ResponseOutputItemDoneEvent(
            type="response.output_item.done", item=done, output_index=0, sequence_number=len(words) + 2
        )
        yield _completed([done], conversation, len(words))


def _answer(conversation: Sequence[Any], said: list[str]) -> str:
    told = _output_of_tool(conversation)
    if told is not None:
        return f"The `{TOOL}` tool says: **{told}**."
    quoted = said[-1] if len(said[-1]) <= 200 else f"{said[-1][:200]}…"
    return WELCOME.format(said=quoted.replace("\n", " "), number=len(said))


def _output_of_tool(conversation: Sequence[Any]) -> str | None:
    last = conversation[-1] if conversation else {}
    return str(last.get("output")) if last.get("type") == "function_call_output" else None


def _said(conversation: Sequence[Any]) -> list[str]:
    """The texts of the user's messages, oldest first; never empty."""
    texts = []
    for item in conversation:
        if item.get("role") == "user":
            content = item.get("content", "")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts.append("".join(str(part.get("text", "")) for part in parts))
    return [text for text in texts if not text.startswith(NOTE_BEGINS)] or [""]


def _completed(output: list[TResponseOutputItem], conversation: Sequence[Any], words: int) -> ResponseCompletedEvent:
    asked = sum(len(str(item)) for item in conversation) // 4
    return ResponseCompletedEvent(
        type="response.completed",
        sequence_number=words + 3,
        response=Response(
            id=_id("resp"),
            created_at=time.time(),
            model="demo",
            object="response",
            output=output,
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
            usage=ResponseUsage(
                input_tokens=asked,
                output_tokens=words,
                total_tokens=asked + words,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        ),
    )


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
