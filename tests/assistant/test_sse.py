"""Pieces of one text that come together are one piece; nothing is lost, and nothing else is joined."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import APIError
from openai.types import CompletionUsage
from openai.types.responses import ResponseFunctionCallArgumentsDeltaEvent, ResponseTextDeltaEvent, ResponseUsage

from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.model_servers.usage import token_counts

PIECES = [f"w{number} " for number in range(40)]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def response_piece(text: str, **other: Any) -> dict[str, Any]:
    kind = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0}
    return kind | {"delta": text, "logprobs": [], "sequence_number": 1} | other


def chat_piece(text: str | None, **other: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text} | other.pop("delta", {}), "finish_reason": None} | other
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


@asynccontextmanager
async def saying(*frames: dict[str, Any], seconds_between: float = 0.0) -> AsyncIterator[StreamingOpenAI]:
    """A model's server with one answer: in one write, or in as many as there are frames."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        written = [f"event: {f.get('type', '')}\ndata: {json.dumps(f)}\n\n".encode() for f in frames]
        written += [b'data: {"type": "response.completed"}\n\n', b"data: [DONE]\n\n"]
        for data in [HEAD, *written] if seconds_between else [HEAD + b"".join(written)]:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(seconds_between)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with StreamingOpenAI(api_key="none", base_url=url, max_retries=0) as client:
        yield client
    server.close()


async def responses(client: StreamingOpenAI) -> AsyncIterator[Any]:
    stream: Any = await client.responses.create(model="m", input="Hello", stream=True)
    async for event in stream:
        if event.type != "response.completed":
            yield event


async def chunks(client: StreamingOpenAI) -> AsyncIterator[Any]:
    stream: Any = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    async for chunk in stream:
        yield chunk


async def test_text_that_comes_together_is_one_event() -> None:
    async with saying(*map(response_piece, PIECES)) as client:
        events = [event async for event in responses(client)]
    assert [type(event) for event in events] == [ResponseTextDeltaEvent]
    assert events[0].delta == "".join(PIECES)


async def test_so_it_is_with_chat_completions() -> None:
    first = chat_piece("", delta={"role": "assistant"})
    # Servers name fields in which they say nothing.
    sent = [chat_piece(text, delta={"tool_calls": None, "reasoning_content": None}) for text in PIECES]
    async with saying(first, *sent, chat_piece(None, finish_reason="stop")) as client:
        received = [(chunk.choices[0].delta.content, chunk.choices[0].finish_reason) async for chunk in chunks(client)]
    assert received == [("", None), ("".join(PIECES), None), (None, "stop")]


@pytest.mark.parametrize(
    "other",
    [
        {"item_id": "another"},
        {"content_index": 1},
        {"output_index": 1},
        {"logprobs": [{"token": "b", "logprob": -1.0}]},
        {"type": "response.reasoning_text.delta"},
    ],
)
async def test_pieces_of_another_text_stay_their_own(other: dict[str, Any]) -> None:
    given = [response_piece("a"), response_piece("b", **other), response_piece("c")]
    async with saying(*given) as client:
        assert [event.delta async for event in responses(client)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "other",
    [
        {"finish_reason": "stop"},
        {"index": 1},
        {"logprobs": {"content": []}},
        {"delta": {"reasoning_content": "Hm."}},
        {"delta": {"refusal": "No."}},
        {"delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}]}},
    ],
)
async def test_a_chunk_that_says_more_stays_its_own(other: dict[str, Any]) -> None:
    async with saying(chat_piece("a"), chat_piece("b", **other), chat_piece("c")) as client:
        assert [chunk.choices[0].delta.content async for chunk in chunks(client)] == ["a", "b", "c"]


async def test_arguments_of_a_tool_are_joined_for_each_call() -> None:
    kind = {"type": "response.function_call_arguments.delta", "sequence_number": 1}
    given = [kind | {"item_id": f"fc_{index}", "output_index": index, "delta": d} for index in (0, 1) for d in "abc"]
    async with saying(*given) as client:
        events = [event async for event in responses(client)]
    assert all(isinstance(event, ResponseFunctionCallArgumentsDeltaEvent) for event in events)
    assert [(event.item_id, event.delta) for event in events] == [("fc_0", "abc"), ("fc_1", "abc")]


async def test_what_came_before_an_error_was_said_before_it() -> None:
    heard: list[str] = []

    async def listen(client: StreamingOpenAI) -> None:
        async for chunk in chunks(client):
            heard.append(chunk.choices[0].delta.content)  # noqa: PERF401 - up to the error

    async with saying(chat_piece("a"), chat_piece("b"), {"error": {"message": "died"}}, chat_piece("c")) as client:
        with pytest.raises(APIError, match="died"):
            await listen(client)
    assert heard == ["ab"]


@pytest.mark.slow
async def test_the_more_texts_are_streamed_the_more_of_each_is_read_at_once() -> None:
    async def pieces() -> list[str]:
        async with saying(*map(response_piece, PIECES), seconds_between=0.005) as client:
            return [event.delta async for event in responses(client)]

    received = await asyncio.gather(*(pieces() for _ in range(60)))
    assert {"".join(each) for each in received} == {"".join(PIECES)}
    assert sum(len(each) for each in received) < 60 * len(PIECES) / 2


def test_tokens_that_a_server_has_not_counted_are_none() -> None:
    none = {"input_tokens": 3, "cached_tokens": 0, "output_tokens": 4, "reasoning_tokens": 0}
    # As the client builds what does not fit its types.
    careless: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert token_counts(ResponseUsage.model_construct(**careless)) == none
    assert token_counts(CompletionUsage(prompt_tokens=3, completion_tokens=4, total_tokens=7)) == none
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": None}}
    whole = CompletionUsage.model_validate({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7} | details)
    assert token_counts(whole) == none | {"cached_tokens": 2}
