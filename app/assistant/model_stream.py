"""What a model streams, read and understood for less.

The openai client tries each event against sixty types, one after the other; an event that says its type is validated
as that, in a thirtieth of the time, and whatever is unusual goes the client's own way. Pieces of one text that came in
one read become one piece: whatever happens to a piece afterwards costs a hundred times what it costs to append to it.
And the more texts are streamed at once, the longer a read waits for more of them to come.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from json import JSONDecodeError
from typing import Any, ClassVar, Self, get_args

from agents import Usage
from agents.exceptions import _mark_error_to_drain_stream_events
from openai import APIConnectionError, APIError, AsyncStream
from openai._streaming import ServerSentEvent, SSEDecoder, _SSELineDecoder
from openai._streaming_cleanup import drain_response_async
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice
from openai.types.responses import (
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseIncompleteEvent,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from pydantic import BaseModel, ValidationError

CUT_OFF = frozenset({"length", "content_filter"})
"""Reasons for which a chat completion ends before its end."""

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
"""Events after which nothing more comes of a response."""

spent_in_vain: ContextVar[Counter[str] | None] = ContextVar("spent_in_vain", default=None)
"""Tokens of answers that did not get to their end: the Agents SDK counts the others. Set where a run begins."""

EVENTS: Mapping[str, type[BaseModel]] = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}


def tokens_of(usage: Usage | ResponseUsage | CompletionUsage) -> dict[str, int]:
    """As ``chat_turns`` keeps them. Servers leave out what they have not counted."""
    given, said = ("prompt", "completion") if isinstance(usage, CompletionUsage) else ("input", "output")

    def count(counted: object, name: str) -> int:
        return getattr(counted, name, None) or 0

    return {
        "input_tokens": count(usage, f"{given}_tokens"),
        "cached_tokens": count(getattr(usage, f"{given}_tokens_details", None), "cached_tokens"),
        "output_tokens": count(usage, f"{said}_tokens"),
        "reasoning_tokens": count(getattr(usage, f"{said}_tokens_details", None), "reasoning_tokens"),
    }


class _Quick(AsyncStream[Any]):
    _is_ended = False

    def __stream__(self) -> AsyncIterator[Any]:
        return _quick(self)

    def type_of(self, _: ServerSentEvent, /) -> type[BaseModel] | None:
        """What an event says it is."""
        raise NotImplementedError

    def note(self, event: Any) -> None:
        """What is about to be yielded."""
        raise NotImplementedError

    def note_end(self) -> None:
        """Raises APIError if nothing has said that this is the end."""
        if not self._is_ended:
            raise APIConnectionError(message="the answer broke off", request=self.response.request)

    def cut(self) -> APIError | None:
        """What is to be said of an answer that has ended and is not whole, however its connection ends."""
        return None

    @staticmethod
    def spend(usage: CompletionUsage | ResponseUsage | None) -> None:
        if usage is not None and (spent := spent_in_vain.get()) is not None:
            spent.update(tokens_of(usage))


class QuickEvents(_Quick):
    def type_of(self, event: ServerSentEvent, /) -> type[BaseModel] | None:
        return EVENTS.get(event.event or "")

    def note(self, event: Any) -> None:
        self._is_ended = self._is_ended or event.type in ENDS
        if isinstance(event, ResponseIncompleteEvent | ResponseFailedEvent):
            self.spend(event.response.usage)


class QuickChunks(_Quick):
    """The Agents SDK takes an answer that was cut for a whole one, unless nothing at all was said."""

    _cut_by: str | None = None
    _usage: CompletionUsage | None = None

    def type_of(self, _: ServerSentEvent, /) -> type[BaseModel] | None:
        return ChatCompletionChunk

    def note(self, event: Any) -> None:
        reasons = [choice.finish_reason for choice in event.choices or () if choice.finish_reason]
        self._is_ended = self._is_ended or bool(reasons)
        self._cut_by = self._cut_by or next(iter(CUT_OFF.intersection(reasons)), None)
        # Said after the reason, or more than once: the last word counts.
        self._usage = event.usage or self._usage

    def cut(self) -> APIError | None:
        if self._cut_by is None:
            return None
        self.spend(self._usage)
        self._usage = None
        return APIError("the answer was cut off", self.response.request, body={"code": self._cut_by})


async def _quick(stream: _Quick) -> AsyncIterator[Any]:
    response = stream.response
    by_read: Any = _ByRead()
    stream._decoder = by_read  # noqa: SLF001 - see docs/decisions/0006
    with _Pace() as pace:
        try:
            async for read in _reads(stream):
                is_text = False
                for event in joined(_understood(stream, read)):
                    is_text = _text_of(event) is not None
                    yield event
                if any(event.data.startswith("[DONE]") for event in read):
                    if response.http_version == "HTTP/1.1":
                        # So that the connection can be used again.
                        await drain_response_async(response)
                    break
                if is_text:
                    await pace.pause()
            else:
                stream.note_end()
            if (cut := stream.cut()) is not None:
                raise cut
        except APIError as error:
            told = stream.cut() or error
            # What was said in the same moment is told before it; the Agents SDK would drop it.
            _mark_error_to_drain_stream_events(told)
            raise told from error.__cause__
        except (UnicodeDecodeError, JSONDecodeError):
            raise APIError("the answer was no text", response.request, body=None) from None
        finally:
            await response.aclose()


class _ByRead(SSEDecoder):
    """Yields the events that one read has completed, together."""

    async def aiter_bytes(self, iterator: AsyncIterator[bytes]) -> AsyncGenerator[list[ServerSentEvent], None]:  # type: ignore[override]
        lines = _SSELineDecoder()
        try:
            async for piece in iterator:
                if events := list(self._decode_lines(lines.feed(piece))):
                    yield events
            if events := list(self._decode_lines(lines.finish())):
                yield events
        finally:
            self._reset()


async def _reads(stream: AsyncStream[Any]) -> AsyncIterator[list[ServerSentEvent]]:
    """Errors of the network as the client has them."""
    read: Any
    async for read in stream._iter_events():  # noqa: SLF001 - see docs/decisions/0006
        yield read


def _understood(stream: _Quick, read: Iterable[ServerSentEvent]) -> Iterator[Any]:
    for event in read:
        if event.data.startswith("[DONE]"):
            return
        kind = stream.type_of(event)
        understood: Any = validated(kind, event.data) if kind is not None else None
        if understood is None:
            data = event.json()
            if isinstance(data, dict) and (error := data.get("error")):
                said = error.get("message") if isinstance(error, dict) else error
                message = said if isinstance(said, str) and said else "An error occurred during streaming"
                raise APIError(message, stream.response.request, body=error)
            own_way = stream._client._process_response_data  # noqa: SLF001 - see docs/decisions/0006
            understood = own_way(data=data, cast_to=stream._cast_to, response=stream.response)  # noqa: SLF001
        # Before the Agents SDK has it, which reads nothing more after an answer that has failed.
        stream.note(understood)
        yield understood


def validated(kind: type[BaseModel], data: str) -> BaseModel | None:
    """None for what is not of this kind, or has an error in it, as what looks like an ordinary chunk may."""
    try:
        event = kind.model_validate_json(data)
    except ValidationError:
        return None
    return None if (event.model_extra or {}).get("error") else event


def joined(events: Iterable[Any]) -> Iterator[Any]:
    """The same events, with adjacent pieces of one text in the first of them."""
    held, held_text = None, None
    try:
        for event in events:
            text = _text_of(event)
            if text is not None and text == held_text:
                _append(held, event)
                continue
            if held is not None:
                yield held
            held, held_text = event, text
    except Exception:
        # What came before it was said.
        if held is not None:
            yield held
        raise
    if held is not None:
        yield held


def _text_of(event: Any) -> tuple[object, ...] | None:
    """Which text an event is a piece of, and nothing else."""
    match event:
        case ResponseTextDeltaEvent():
            return None if event.logprobs else (event.type, event.item_id, event.output_index, event.content_index)
        case ResponseReasoningTextDeltaEvent():
            return event.type, event.item_id, event.output_index, event.content_index
        case ResponseReasoningSummaryTextDeltaEvent():
            return event.type, event.item_id, event.output_index, event.summary_index
        case ResponseFunctionCallArgumentsDeltaEvent():
            return event.type, event.item_id, event.output_index
        case ChatCompletionChunk(choices=[choice], usage=None) if choice.delta.content and not choice.logprobs:
            return None if _says_more(choice) else (event.id, choice.index)
        case _:
            return None


def _says_more(choice: Choice) -> bool:
    """Servers name fields that they have nothing to say in."""
    delta = choice.delta
    said = (delta.tool_calls, delta.function_call, delta.refusal, *(delta.model_extra or {}).values())
    return choice.finish_reason is not None or any(part is not None for part in said)


def _append(first: Any, event: Any) -> None:
    if isinstance(first, ChatCompletionChunk):
        content = first.choices[0].delta.content or ""
        first.choices[0].delta.content = content + (event.choices[0].delta.content or "")
    else:
        first.delta += event.delta
        first.sequence_number = event.sequence_number


class _Pace:
    """How long a stream of text waits before it is read again: a millisecond for each that is open in this process."""

    SECONDS = 0.001
    LONGEST_SECONDS = 0.1
    open_streams: ClassVar[int] = 0

    def __enter__(self) -> Self:
        _Pace.open_streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        _Pace.open_streams -= 1

    async def pause(self) -> None:
        await asyncio.sleep(min(self.LONGEST_SECONDS, _Pace.open_streams * self.SECONDS))
