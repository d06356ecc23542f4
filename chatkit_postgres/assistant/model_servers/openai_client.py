"""An AsyncOpenAI that reads streams in a third of the processor time, and tolerates malformed events (``lenient.py``).

The stock client transforms all tools and the whole history on every call, although the Agents SDK has already written
them as the API expects. Passed as ``extra_body``, they are sent unchanged.
"""

from functools import cached_property
from typing import Any, ClassVar

import httpx2
from openai import APIConnectionError, AsyncOpenAI, DefaultAioHttpClient, omit
from openai.resources.chat import AsyncChat
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses

from chatkit_postgres.assistant.model_input.input_shape import shaped_items, shaped_messages
from chatkit_postgres.assistant.model_servers.aiohttp_transport import AiohttpTransport
from chatkit_postgres.assistant.model_servers.sse import ModelStream
from chatkit_postgres.assistant.model_servers.streams import ChatCompletionsStream, ResponsesStream
from chatkit_postgres.observability.tracing import trace_headers
from chatkit_postgres.text import clean_text

CLEANED = ("input", "instructions")


class StreamingOpenAI(AsyncOpenAI):
    """Takes the arguments of AsyncOpenAI; the caller closes it. Raises ProxyRefused."""

    def __init__(self, *, http_client: httpx2.AsyncClient | None = None, **given: Any) -> None:
        url = httpx2.URL(given.get("base_url") or "")
        if url.query:
            # The stock client would append its paths to the query.
            given |= {"base_url": url.copy_with(query=None), "default_query": dict(url.params)}
        super().__init__(http_client=http_client or DefaultAioHttpClient(transport=AiohttpTransport()), **given)

    @cached_property
    def responses(self) -> "_Responses":
        return _Responses(self)

    @cached_property
    def chat(self) -> "_Chat":
        return _Chat(self)


class _Responses(AsyncResponses):
    # The Agents SDK would call this attribute; without it, the SDK calls create.
    with_streaming_response: ClassVar[Any] = None

    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._stock = AsyncResponses(client)

    async def create(self, **given: Any) -> Any:
        if isinstance(given.get("input"), list):
            given["input"] = shaped_items(given["input"])
        given |= {name: clean_text(given[name]) for name in CLEANED if isinstance(given.get(name), str)}
        return await _create(self._stock, ResponsesStream, given)


class _Completions(AsyncCompletions):
    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._stock = AsyncCompletions(client)

    async def create(self, **given: Any) -> Any:
        if given.get("stream") is True and given.get("stream_options", omit) is omit:
            # The Agents SDK asks only OpenAI for usage; other servers do not report it unasked, either.
            given["stream_options"] = {"include_usage": True}
        if isinstance(given.get("messages"), list):
            given["messages"] = shaped_messages(given["messages"])
        return await _create(self._stock, ChatCompletionsStream, given)


class _Chat(AsyncChat):
    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._completions = _Completions(client)

    @property
    def completions(self) -> _Completions:
        return self._completions


async def _create(api: AsyncResponses | AsyncCompletions, stream: type[ModelStream], given: dict[str, Any]) -> Any:
    if headers := trace_headers():
        given["extra_headers"] = {**headers, **(given.get("extra_headers") or {})}
    large = {name: given[name] for name in ("input", "messages", "tools") if isinstance(given.get(name), list)}
    # extra_body overwrites these empty lists.
    given |= {**{name: [] for name in large}, "extra_body": {**large, **(given.get("extra_body") or {})}}
    try:
        if given.get("stream") is not True:
            return await api.create(**given)
        return stream(await api.with_streaming_response.create(**given).__aenter__())
    except httpx2.RequestError as error:
        # Raised while the body of an error response was read; elsewhere the client maps it.
        raise APIConnectionError(request=error.request) from error
