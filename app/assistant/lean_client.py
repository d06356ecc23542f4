"""The openai client without the three things that cost most of a token's and a turn's processor time.

It walks through all tools and all of the history on every call, to translate names that the Agents SDK has written as
the API wants them: handed over as ``extra_body`` they are sent as they are, and the request stays the same. It tries
each streamed event against sixty types, one after the other; an event that says its type is validated as that, in a
thirtieth of the time, and whatever is unusual goes the client's own way. And it reads through httpx, where a piece of
text costs five times as much as through aiohttp, which the client offers as well.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import cached_property
from typing import Any, get_args

from openai import APIError, AsyncOpenAI, AsyncStream
from openai._streaming import ServerSentEvent
from openai._streaming_cleanup import drain_response_async
from openai.resources.chat import AsyncChat
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, ValidationError

from app.assistant.transport import AiohttpClient

_EVENTS: Mapping[str, type[BaseModel]] = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}
_LARGE = ("input", "messages", "tools")


def _as_extra_body(given: dict[str, Any]) -> dict[str, Any]:
    large = {name: given.pop(name) for name in _LARGE if isinstance(given.get(name), list)}
    return given | {"extra_body": {**large, **(given.get("extra_body") or {})}}


class _Responses(AsyncResponses):
    async def create(self, **given: Any) -> Any:
        return await super().create(**_as_extra_body(given))


class _Completions(AsyncCompletions):
    async def create(self, **given: Any) -> Any:
        # It insists on messages; those of the extra body take their place.
        return await super().create(**{"messages": []} | _as_extra_body(given))


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> _Completions:
        return _Completions(self._client)


class _QuickEvents(AsyncStream[ResponseStreamEvent]):
    def __stream__(self) -> AsyncIterator[Any]:
        return _quick(self, lambda event: _EVENTS.get(event.event or ""))


class _QuickChunks(AsyncStream[ChatCompletionChunk]):
    def __stream__(self) -> AsyncIterator[Any]:
        return _quick(self, lambda _: ChatCompletionChunk)


async def _quick(
    stream: AsyncStream[Any], type_of: Callable[[ServerSentEvent], type[BaseModel] | None]
) -> AsyncIterator[Any]:
    response = stream.response
    try:
        async for event in stream._iter_events():  # noqa: SLF001 - see docs/decisions/0006
            if event.data.startswith("[DONE]"):
                if response.http_version == "HTTP/1.1":
                    # So that the connection can be used again.
                    await drain_response_async(response)
                break
            kind = type_of(event)
            if kind is not None and (quick := _validated(kind, event.data)) is not None:
                yield quick
                continue
            data = event.json()
            if isinstance(data, dict) and (error := data.get("error")):
                said = error.get("message") if isinstance(error, dict) else error
                message = said if isinstance(said, str) and said else "An error occurred during streaming"
                raise APIError(message, response.request, body=error)
            own_way = stream._client._process_response_data  # noqa: SLF001 - see docs/decisions/0006
            yield own_way(data=data, cast_to=stream._cast_to, response=response)  # noqa: SLF001
    finally:
        await response.aclose()


def _validated(kind: type[BaseModel], data: str) -> BaseModel | None:
    try:
        event = kind.model_validate_json(data)
    except ValidationError:
        return None
    # An error may come inside of what looks like an ordinary chunk.
    return None if (event.model_extra or {}).get("error") else event


_QUICK = ((AsyncStream[ResponseStreamEvent], _QuickEvents), (AsyncStream[ChatCompletionChunk], _QuickChunks))


class LeanClient(AsyncOpenAI):
    """Takes what AsyncOpenAI takes; to be closed, as aiohttp complains otherwise."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"http_client": AiohttpClient()} | given)

    @cached_property
    def responses(self) -> _Responses:
        return _Responses(self)

    @cached_property
    def chat(self) -> _Chat:
        return _Chat(self)

    async def post(self, path: str, **given: Any) -> Any:
        for usual, quick in _QUICK:
            if given.get("stream_cls") == usual:
                given["stream_cls"] = quick
        return await super().post(path, **given)
