"""The store alone, in a ChatKitServer as OpenAI's guide builds one: FastAPI, the Agents SDK, chat completions."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx2
import pytest
import uvicorn
from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.types import ThreadMetadata, ThreadStreamEvent, UserMessageItem
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from openai import AsyncOpenAI

from chatkit_postgres.store import DatabaseStore
from tests.support.processes import ModelServer, message, texts

Context = dict[str, Any]


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    """One that sends every field, always: here the stock client has to read it."""
    server = ModelServer()
    yield server
    server.close()


@function_tool
def current_time() -> str:
    return "noon"


class StockServer(ChatKitServer[Context]):
    def __init__(self, store: DatabaseStore, client: AsyncOpenAI) -> None:
        super().__init__(store)
        self.agent: Agent[AgentContext[Context]] = Agent(
            name="Stock", tools=[current_time], model=OpenAIChatCompletionsModel("m", client)
        )

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Context
    ) -> AsyncIterator[ThreadStreamEvent]:
        running: AgentContext[Context] = AgentContext(thread=thread, store=self.store, request_context=context)
        # The newest message alone: the SDK's converter cannot give chat completions what they said before.
        given = await simple_to_agent_input(input_user_message or [])
        result = Runner.run_streamed(self.agent, given, context=running, run_config=RunConfig(tracing_disabled=True))
        async for event in stream_agent_response(running, result):
            yield event


@asynccontextmanager
async def served(store: DatabaseStore, model: ModelServer) -> AsyncIterator[httpx2.AsyncClient]:
    """On a socket, by uvicorn, whose client can hang up."""
    app = FastAPI()
    client = AsyncOpenAI(api_key="none", base_url=model.url, max_retries=0)
    chat = StockServer(store, client)

    @app.post("/chatkit")
    async def chatkit(request: Request) -> Response:
        result = await chat.process(await request.body(), {"user_id": request.headers["x-user"], "request": request})
        if isinstance(result, StreamingResult):
            return StreamingResponse(result, media_type="text/event-stream")
        return Response(result.json, media_type="application/json")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx2.AsyncClient(base_url=base_url, headers={"x-user": "alice"}, timeout=30) as asking:
                yield asking
        finally:
            server.should_exit = True
            await running
            await client.close()


async def events_of(client: httpx2.AsyncClient, thread_id: str | None, text: str) -> AsyncIterator[dict[str, Any]]:
    params: dict[str, Any] = {"input": message(text)}
    if thread_id is not None:
        params["thread_id"] = thread_id
    asked = {"type": "threads.add_user_message" if thread_id else "threads.create", "params": params}
    async with client.stream("POST", "/chatkit", json=asked) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def post_message(client: httpx2.AsyncClient, thread_id: str | None, text: str) -> str:
    events = [event async for event in events_of(client, thread_id, text)]
    assert [event for event in events if event["type"] == "error"] == []
    return thread_id or str(next(event["thread"]["id"] for event in events if event["type"] == "thread.created"))


async def hang_up(client: httpx2.AsyncClient, thread_id: str, text: str, after: str) -> None:
    async for event in events_of(client, thread_id, text):
        if after in json.dumps(event):
            return


async def items(client: httpx2.AsyncClient, thread_id: str) -> list[dict[str, Any]]:
    asked = {"type": "items.list", "params": {"thread_id": thread_id, "order": "asc", "limit": 100}}
    found = (await client.post("/chatkit", json=asked)).json()
    assert not found["has_more"]
    return list(found["data"])


def script(**steps: Any) -> str:
    return "SCRIPT " + json.dumps(steps)


async def answers(client: httpx2.AsyncClient, thread_id: str) -> list[str]:
    return texts([item for item in await items(client, thread_id) if item["type"] == "assistant_message"])


async def until(client: httpx2.AsyncClient, thread_id: str, count: int) -> list[str]:
    """The answers, once there are so many: the server notices later than we that we have gone."""
    async with asyncio.timeout(10):
        while True:
            if len(found := await answers(client, thread_id)) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_three_turns_are_three_answers(store: DatabaseStore, model_server: ModelServer) -> None:
    async with served(store, model_server) as client:
        thread_id = await post_message(client, None, "one")
        await post_message(client, thread_id, "two")
        await post_message(client, thread_id, script(words=1, tools=[["current_time", "{}"]]))
        kept = await items(client, thread_id)
    assert [item["type"].removesuffix("_message") for item in kept] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
        "assistant",
    ]
    answer_texts = texts([item for item in kept if item["type"] == "assistant_message"])
    assert answer_texts[2:] == ["w0 ", "Done."]
    assert "'one'" in answer_texts[0]
    assert "'two'" in answer_texts[1]
    assert len({item["id"] for item in kept}) == len(kept)


@pytest.mark.parametrize("count", [1, 3])
async def test_the_partial_answer_of_a_cancelled_stream_is_kept(
    store: DatabaseStore, model_server: ModelServer, count: int
) -> None:
    """However often; and the conversation goes on."""
    async with served(store, model_server) as client:
        thread_id = await post_message(client, None, "one")
        for number in range(count):
            await hang_up(client, thread_id, script(words=200, delay=0.01), "w5 ")
            await until(client, thread_id, number + 2)
        await post_message(client, thread_id, "two")
        answer_texts = await answers(client, thread_id)
    assert len(answer_texts) == count + 2
    for partial in answer_texts[1:-1]:
        assert partial.startswith("w0 w1 w2 w3 w4 w5 ")
        assert "w199" not in partial


async def test_a_hang_up_at_any_moment_keeps_an_answer_at_most_once(
    store: DatabaseStore, model_server: ModelServer
) -> None:
    """Also where it was being saved just then. (None is kept where the SDK is not told of the hang-up: it is then not
    reading, but waiting to be read.)"""
    async with served(store, model_server) as client:
        thread_id = await post_message(client, None, "one")
        for number in range(12):
            await hang_up(client, thread_id, script(words=3, note=f"{number}"), ("w2 ", "thread.item.done")[number % 2])
        await store.writer.detached.wait()
        # The last one may still be noticed.
        await asyncio.sleep(0.5)
        await store.writer.detached.wait()
        kept = [item["type"] for item in await items(client, thread_id) if item["type"] != "sdk_hidden_context"]
    assert kept.count("user_message") == 13
    assert kept.count("assistant_message") > 1
    assert not any(pair == ("assistant_message", "assistant_message") for pair in pairwise(kept))
