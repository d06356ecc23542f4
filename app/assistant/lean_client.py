"""The openai client without what costs most of a token's and a turn's processor time.

It walks through all tools and all of the history on every call, to translate names that the Agents SDK has written as
the API wants them: handed over as ``extra_body`` they are sent as they are, and the request stays the same. What a
model streams is understood by ``model_stream.py``. And the client reads through httpx, where a piece of text costs
five times as much as through aiohttp, which it offers as well (``transport.py``).
"""

from functools import cached_property
from typing import Any

import httpx2
from openai import APIConnectionError, AsyncOpenAI, AsyncStream, Omit, omit
from openai.resources.chat import AsyncChat
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

from app.assistant.model_stream import QuickChunks, QuickEvents
from app.assistant.transport import AiohttpClient

MOST_WAITING_SECONDS = 20
"""A person waits: a provider that wants to be left alone for longer is busy. The client itself waits two minutes."""

_LARGE = ("input", "messages", "tools")


def _as_extra_body(given: dict[str, Any]) -> dict[str, Any]:
    large = {name: given.pop(name) for name in _LARGE if isinstance(given.get(name), list)}
    return given | {"extra_body": {**large, **(given.get("extra_body") or {})}}


class _Responses(AsyncResponses):
    async def create(self, **given: Any) -> Any:
        return await super().create(**_as_extra_body(given))


class _Completions(AsyncCompletions):
    async def create(self, **given: Any) -> Any:
        if given.get("stream") is True and isinstance(given.get("stream_options", omit), Omit):
            # The Agents SDK asks OpenAI alone; the others do not count tokens unless they are asked either.
            given["stream_options"] = {"include_usage": True}
        # It insists on messages; those of the extra body take their place.
        return await super().create(**{"messages": []} | _as_extra_body(given))


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> _Completions:
        return _Completions(self._client)


_QUICK = ((AsyncStream[ResponseStreamEvent], QuickEvents), (AsyncStream[ChatCompletionChunk], QuickChunks))


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

    def _should_retry(self, response: httpx2.Response) -> bool:
        wait = self._parse_retry_after_header(response.headers)
        return (wait is None or wait <= MOST_WAITING_SECONDS) and super()._should_retry(response)

    async def post(self, path: str, **given: Any) -> Any:
        for usual, quick in _QUICK:
            if given.get("stream_cls") == usual:
                given["stream_cls"] = quick
        try:
            return await super().post(path, **given)
        except httpx2.TransportError as error:
            # While the words of a refusal were read; everywhere else the client does this itself.
            raise APIConnectionError(request=httpx2.Request("POST", self.base_url)) from error
