"""An AsyncOpenAI that reads streams for a third of the processor time, and from careless servers (``sse.py``).

The stock client walks through all tools and the whole history on every call, to translate names that the Agents SDK
has already written as the API wants them. As ``extra_body`` they are sent as they are, and the request is the same.
"""

from functools import cached_property
from typing import Any, ClassVar

import httpx2
from openai import APIConnectionError, AsyncOpenAI, DefaultAioHttpClient, omit
from openai.resources.chat import AsyncChat
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses

from app.assistant.aiohttp_transport import AiohttpTransport
from app.assistant.sse import ModelStream
from app.assistant.streams import ChatCompletionsStream, ResponsesStream


class StreamingOpenAI(AsyncOpenAI):
    """Takes what AsyncOpenAI takes; has to be closed. Raises ProxyRefused."""

    def __init__(self, *, http_client: httpx2.AsyncClient | None = None, **given: Any) -> None:
        url = httpx2.URL(given.get("base_url") or "")
        if url.query:
            # The stock client appends its paths to it.
            given |= {"base_url": url.copy_with(query=None), "default_query": dict(url.params)}
        super().__init__(http_client=http_client or DefaultAioHttpClient(transport=AiohttpTransport()), **given)

    @cached_property
    def responses(self) -> "_Responses":
        return _Responses(self)

    @cached_property
    def chat(self) -> "_Chat":
        return _Chat(self)


class _Responses(AsyncResponses):
    # The Agents SDK then calls create.
    with_streaming_response: ClassVar[Any] = None

    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._stock = AsyncResponses(client)

    async def create(self, **given: Any) -> Any:
        return await _create(self._stock, ResponsesStream, given)


class _Completions(AsyncCompletions):
    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._stock = AsyncCompletions(client)

    async def create(self, **given: Any) -> Any:
        if given.get("stream") is True and given.get("stream_options", omit) is omit:
            # The Agents SDK asks OpenAI alone; other servers do not count tokens either unless they are asked.
            given["stream_options"] = {"include_usage": True}
        return await _create(self._stock, ChatCompletionsStream, given)


class _Chat(AsyncChat):
    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._completions = _Completions(client)

    @property
    def completions(self) -> _Completions:
        return self._completions


async def _create(api: AsyncResponses | AsyncCompletions, stream: type[ModelStream], given: dict[str, Any]) -> Any:
    large = {name: given[name] for name in ("input", "messages", "tools") if isinstance(given.get(name), list)}
    # Those of the extra body take the places of the empty ones.
    given |= {**{name: [] for name in large}, "extra_body": {**large, **(given.get("extra_body") or {})}}
    try:
        if given.get("stream") is not True:
            return await api.create(**given)
        return stream(await api.with_streaming_response.create(**given).__aenter__())
    except httpx2.RequestError as error:
        # While the text of a refusal was read; everywhere else the client does this itself.
        raise APIConnectionError(request=error.request) from error
