"""Parses the event streams of OpenAI's two APIs: deltas, ends, failures and usage."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast, get_args

from openai import APIError, AsyncAPIResponse, BaseModel
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import (
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseOutputTextAnnotationAddedEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)

from chatkit_postgres.assistant.model_servers.citations import read_citation, read_citations
from chatkit_postgres.assistant.model_servers.lenient import read_as
from chatkit_postgres.assistant.model_servers.sse import ModelStream
from chatkit_postgres.assistant.model_servers.usage import add_failed_usage

EVENT_TYPES: Mapping[str, type[BaseModel]] = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}
TEXTS = ("output_text", "refusal", "reasoning_text", "reasoning_summary_text", "function_call_arguments")
TEXT_DELTAS = frozenset(f"response.{text}.delta" for text in TEXTS)
TEXT_KEY = ("type", "item_id", "output_index", "content_index", "summary_index")
TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.error", "error"})
MAX_PARTS = 1000
TRUNCATIONS = frozenset({"length", "content_filter"})
"""Finish reasons of truncated responses, which the Agents SDK treats as complete."""


class ResponsesStream(ModelStream):
    def __init__(self, answer: AsyncAPIResponse[Any]) -> None:
        super().__init__(answer)
        self._citations: defaultdict[tuple[str, int], list[BaseModel]] = defaultdict(list)
        self._texts: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        """Texts that were streamed as deltas, by message id and index of the part."""
        self._message_id = ""

    def text_key(self, data: dict[str, Any]) -> object:
        match data:
            case {"type": str(name), "delta": str()} if name in TEXT_DELTAS and not data.get("logprobs"):
                return [data.get(name) for name in TEXT_KEY]
        return None

    def append(self, first: dict[str, Any], data: dict[str, Any]) -> None:
        first["delta"] += data["delta"]

    def read(self, data: dict[str, Any]) -> BaseModel | None:
        name = data.get("type")
        if not isinstance(name, str):
            return None
        event: Any = read_as(EVENT_TYPES.get(name, BaseModel), data)
        if name in TERMINAL_EVENTS:
            self.is_ended = self.is_done = True
        if isinstance(event, ResponseIncompleteEvent | ResponseFailedEvent):
            # The Agents SDK stops reading at this event.
            add_failed_usage(event.response.usage)
        if isinstance(event, ResponseOutputTextAnnotationAddedEvent):
            event.annotation = cast("Any", read_citation(data.get("annotation")))
        self._observe(event)
        # The SDKs raise if one of these fields is None.
        is_empty = any(vars(event).get(field, ...) is None for field in ("item", "part", "annotation"))
        return None if is_empty else cast("BaseModel", event)

    def _observe(self, event: Any) -> None:
        match event:
            case ResponseTextDeltaEvent():
                event.item_id = event.item_id or self._message_id
                self._texts[event.item_id, event.content_index].append(event.delta)
            case ResponseOutputTextAnnotationAddedEvent() if event.annotation is not None:
                self._citations[event.item_id, event.content_index].append(event.annotation)
            case ResponseOutputItemAddedEvent(item=ResponseOutputMessage() as message):
                self._message_id = message.id
            case ResponseOutputItemDoneEvent(item=ResponseOutputMessage() as message):
                self._complete(message)
            case _:
                pass

    def _complete(self, message: ResponseOutputMessage) -> None:
        """Restore text and citations that some servers stream but omit from the finished message."""
        streamed = [index for item_id, index in self._texts if item_id == message.id and index < MAX_PARTS]
        for _ in range(len(message.content), max(streamed, default=-1) + 1):
            message.content.append(read_as(ResponseOutputText, {}))
        for index, part in enumerate(message.content):
            if isinstance(part, ResponseOutputText):
                part.text = part.text or "".join(self._texts[message.id, index])
                found = read_citations(part.annotations) or self._citations[message.id, index]
                part.annotations = cast("list[Any]", found)


class ChatCompletionsStream(ModelStream):
    def __init__(self, answer: AsyncAPIResponse[Any]) -> None:
        super().__init__(answer)
        self._has_content = False
        self._calls: list[tuple[object, object]] = []
        """The index and the id of each tool call, as sent by the server."""
        self._truncation: str | None = None
        self._complaint: dict[str, Any] | None = None

    def text_key(self, data: dict[str, Any]) -> object:
        match data.get("choices"):
            case [{"delta": {"content": str(content), **others}, **rest}] if content:
                others.pop("role", None)
                more = (*others.values(), data.get("usage"), rest.get("finish_reason"), rest.get("logprobs"))
                return [data.get("id"), rest.get("index")] if all(part is None for part in more) else None
        return None

    def append(self, first: dict[str, Any], data: dict[str, Any]) -> None:
        first["choices"][0]["delta"]["content"] += data["choices"][0]["delta"]["content"]

    def read(self, data: dict[str, Any]) -> BaseModel | None:
        if data.get("object") == "error" or "detail" in data:
            # The response may still continue.
            self._complaint = data
        choices = data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._correct(choice)
        chunk = read_as(ChatCompletionChunk, data)
        reasons = [reason for choice in chunk.choices if isinstance(reason := choice.finish_reason, str) and reason]
        self.is_ended = self.is_ended or bool(reasons)
        self._truncation = self._truncation or next((reason for reason in reasons if reason in TRUNCATIONS), None)
        # The usage follows the finish reason, or grows with every chunk.
        self.usage = chunk.usage or self.usage
        return chunk if chunk.choices or chunk.usage else None

    def failure(self) -> APIError | None:
        if self._truncation is not None:
            return self.error({"message": "the answer was cut off", "code": self._truncation})
        if self.is_ended or self.is_done:
            # Some servers send no finish reason, but [DONE].
            return None
        return super().failure() if self._complaint is None else self.error(self._complaint)

    def _correct(self, choice: dict[str, Any]) -> None:
        """Some servers send a whole message in place of a delta; some give all tool calls no index, or the same."""
        if not isinstance(choice.get("delta"), dict) and isinstance(choice.get("message"), dict):
            choice["delta"] = {} if self._has_content else choice["message"]
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._has_content = self._has_content or bool(delta.get("content"))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    call["index"] = self._place_of(call)

    def _place_of(self, call: Mapping[str, Any]) -> int:
        index, call_id, function = call.get("index"), call.get("id"), call.get("function")
        index = index if isinstance(index, int) else None
        begins = isinstance(function, dict) and function.get("name") and (call_id or index is None)
        for place, (known_index, known_id) in reversed([*enumerate(self._calls)]):
            is_same_place = index is None or known_index in (None, index)
            # One server gives all calls the same index, another the same id.
            if is_same_place if not begins else bool(call_id) and call_id == known_id and is_same_place:
                return place
        self._calls.append((index, call_id))
        return len(self._calls) - 1
