"""What our client sends and yields is what the openai client sends and yields."""

import asyncio
import gc
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from openai import APIError, AsyncOpenAI, omit
from openai._models import FinalRequestOptions, construct_type
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent, ResponseTextDeltaEvent
from polyfactory.factories.pydantic_factory import ModelFactory

from chatkit_postgres.assistant.model_input.input_shape import shaped_items, shaped_messages
from chatkit_postgres.assistant.model_servers import lenient, streams
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.models import ConfiguredModels, ModelOptions
from tests.support.processes import ModelServer
from tests.support.streams import STREAMS, Served, frames

TOOL = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": True,
}
INPUT = [
    {"role": "user", "content": [{"type": "input_text", "text": "before"}]},
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "seen"},
]


@pytest.fixture(params=[AsyncOpenAI, StreamingOpenAI], ids=["openai", "lean"])
async def client(request: pytest.FixtureRequest, model_server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    made = request.param(api_key="none", base_url=model_server.url, max_retries=0)
    yield made
    await made.close()


async def both(model_server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    for kind in (AsyncOpenAI, StreamingOpenAI):
        made = kind(api_key="none", base_url=model_server.url, max_retries=0)
        yield made
        await made.close()


def script(**steps: Any) -> dict[str, Any]:
    return {"role": "user", "content": "SCRIPT " + json.dumps(steps)}


async def responses(client: Any, **steps: Any) -> list[Any]:
    given = [*INPUT, script(**steps)]
    stream = await client.responses.create(
        model="m", input=given, tools=[TOOL], stream=True, temperature=0.5, extra_body={"own": 1}
    )
    return [event async for event in stream]


async def chunks(client: AsyncOpenAI, **steps: Any) -> list[Any]:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    given: Any = [{"role": "system", "content": "Answer."}, script(**steps)]
    counted: Any = {"include_usage": True}
    stream = await client.chat.completions.create(
        model="m", messages=given, tools=[tool], stream=True, stream_options=counted
    )
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("ask", [responses, chunks])
async def test_the_request_is_the_same_but_for_its_shape(model_server: ModelServer, ask: Any) -> None:
    bodies = []
    async for client in both(model_server):
        await ask(client, words=2, note="same")
        body = model_server.calls()[-1]["body"]
        shapes = {"input": shaped_items, "messages": shaped_messages}
        bodies.append({name: shapes[name](value) if name in shapes else value for name, value in body.items()})
    assert bodies[0] == bodies[1]
    assert bodies[0]["tools"]


class Made(ModelFactory[Any]):
    """Events with something in every field."""

    __is_base_factory__ = True
    __random_seed__ = 20


Made.add_provider(object, lambda: {"any": "thing"})


@pytest.mark.parametrize("name", sorted(streams.EVENT_TYPES))
def test_each_event_there_is_becomes_what_the_client_makes_of_it(name: str) -> None:
    kind = streams.EVENT_TYPES[name]
    for event in Made.create_factory(kind).batch(2):
        data = event.model_dump_json(by_alias=True)
        quick = lenient.read_as(kind, json.loads(data))
        slow = construct_type(value=json.loads(data), type_=ResponseStreamEvent)
        assert (type(quick), quick) == (type(slow), slow)
        assert type(quick) is kind


async def test_frequent_events_have_their_types(client: AsyncOpenAI) -> None:
    pieces = [event.delta for event in await responses(client, words=3) if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(pieces) == "w0 w1 w2 "
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in await chunks(client, words=3))


async def test_an_error_in_the_stream_is_the_same(client: AsyncOpenAI) -> None:
    with pytest.raises(APIError) as failed:
        await chunks(client, words=1, then="fail", code="rate_limit_exceeded")
    assert (failed.value.code, failed.value.message) == ("rate_limit_exceeded", "as the script says")


@pytest.mark.parametrize(("asked", "sent"), [(omit, True), ({"include_usage": False}, False)])
async def test_tokens_are_asked_for_unless_somebody_says_no(model_server: ModelServer, asked: Any, sent: bool) -> None:
    async with StreamingOpenAI(api_key="none", base_url=model_server.url) as client:
        given: Any = [script(words=1)]
        stream = await client.chat.completions.create(model="m", messages=given, stream=True, stream_options=asked)
        used = [chunk.usage async for chunk in stream if chunk.usage is not None]
        await client.chat.completions.create(model="m", messages=given, extra_body={"stream": None})
    assert len(used) == sent
    assert [call["body"].get("stream_options") for call in model_server.calls()[-2:]] == [{"include_usage": sent}, None]


async def test_a_query_of_the_base_url_stays_a_query() -> None:
    network = Served(frames(STREAMS["chat_completions", "text"]))
    own = httpx2.AsyncClient(transport=network)
    base_url = "http://model.invalid/v1/?api-version=2026-11&key=a%2Fb"
    async with StreamingOpenAI(api_key="none", base_url=base_url, http_client=own, max_retries=0) as client:
        await chunks(client)
    assert str(network.requests[0].url).endswith("/v1/chat/completions?api-version=2026-11&key=a%2Fb")


async def test_a_connection_is_used_again(model_server: ModelServer) -> None:
    client = StreamingOpenAI(api_key="none", base_url=model_server.url, max_retries=0)
    for _ in range(3):
        await chunks(client, words=1)
        await responses(client, words=1)
    await client.close()
    assert len({call["port"] for call in model_server.calls()[-6:]}) == 1


async def test_the_models_close_their_client() -> None:
    client = StreamingOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    await ConfiguredModels(ModelOptions(), client).aclose()
    assert client.is_closed()


class Sse:
    """A server of one answer, and then silence for as long as the test lasts."""

    def __init__(self, *frames: str) -> None:
        self.frames = frames

    async def __aenter__(self) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            for frame in self.frames:
                writer.write(f"data: {frame}\n\n".encode())
            await writer.drain()
            writer.close()

        self.server = await asyncio.start_server(answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()


CHUNK = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]'


@pytest.mark.parametrize("kind", [AsyncOpenAI, StreamingOpenAI])
@pytest.mark.parametrize(
    "frame",
    ['{"error": "out of memory"}', '{"error": {"message": "engine died"}}', CHUNK + ', "error": {"message": "died"}}'],
)
async def test_an_error_of_any_shape_is_raised(kind: type[AsyncOpenAI], frame: str) -> None:
    async with Sse(CHUNK + "}", frame) as url:
        client = kind(api_key="none", base_url=url, max_retries=0)
        with pytest.raises(APIError):
            await chunks(client, words=1)
        await client.close()


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_the_sent_history_is_not_kept_while_the_answer_streams(model_server: ModelServer, api: str) -> None:
    """It would be the largest part of what an open stream needs."""
    mark = f"HISTORY-{api}"
    async with StreamingOpenAI(api_key="none", base_url=model_server.url, max_retries=0) as client:
        said: Any = [{"role": "user", "content": mark}, script(words=2, delay=0.1)]
        if api == "responses":
            stream: Any = await client.responses.create(model="m", input=said, stream=True)
        else:
            stream = await client.chat.completions.create(model="m", messages=said, stream=True)
        first = await anext(aiter(stream))
        gc.collect()
        holders = [found for found in gc.get_objects() if mark.encode() in _held_by(found)]
        assert holders == []
        assert [first, *[event async for event in stream]][-1] is not None


def _held_by(found: object) -> bytes:
    match found:
        case httpx2.Request():
            return found.content
        case io.BytesIO() if not found.closed:
            return found.getvalue()
        case FinalRequestOptions():
            return repr(found.json_data).encode() + repr(found.extra_json).encode()
        case _:
            return b""
