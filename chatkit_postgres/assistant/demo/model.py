"""A demo model without network and key, so that the whole server can be tried on a laptop.

DemoModel implements the interface of a real model: it streams Markdown word by word, receives the whole conversation,
and calls the agent's tools when a message names them (replies.py).
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

from agents import Handoff, ModelResponse, TResponseInputItem, Usage
from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.models.interface import Model
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

from chatkit_postgres.assistant.demo.replies import answer_to, call_for

SECONDS_PER_WORD = 0.01


class DemoModel(Model):
    def __init__(self, seconds_per_word: float = SECONDS_PER_WORD) -> None:
        self.seconds_per_word = seconds_per_word

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        async for event in self.stream_response(*args, **kwargs):
            if isinstance(event, ResponseCompletedEvent):
                return ModelResponse(output=event.response.output, usage=Usage(), response_id=None)
        raise AssertionError("unreachable: a stream ends with its completion")

    async def stream_response(  # noqa: PLR0917 - as the SDK calls it
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: Any,
        tools: Sequence[Any],
        output_schema: Any = None,
        handoffs: Sequence[Handoff[Any, Any]] = (),
        *_: Any,
        **__: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        conversation = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
        if (wanted := call_for(conversation, tools, handoffs)) is not None:
            name, arguments = wanted
            call = ResponseFunctionToolCall(
                id=_id("fc"), call_id=_id("call"), type="function_call", name=name, arguments=arguments
            )
            yield ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=call, output_index=0, sequence_number=0
            )
            yield ResponseOutputItemDoneEvent(
                type="response.output_item.done", item=call, output_index=0, sequence_number=1
            )
            yield _completed([call], conversation, 0)
            return
        async for event in self._message(answer_to(conversation, system_instructions, tools), conversation):
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
