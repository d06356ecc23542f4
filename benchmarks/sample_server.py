"""A server as OpenAI's samples build it: FastAPI, ``ChatKitServer.process``, the Agents SDK, and a store in memory.

``python -m benchmarks.sample_server PORT``, with OPENAI_BASE_URL and OPENAI_API_KEY. The server has no database and no
users, and loses everything when it ends. Tracing, which the Agents SDK would send to OpenAI, is off.
"""

import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from agents import Agent, RunConfig, Runner
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import NotFoundError, Store
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata, ThreadStreamEvent, UserMessageItem
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from benchmarks.assistant import tools

Context = dict[str, Any]


class MemoryStore(Store[Context]):
    def __init__(self) -> None:
        self.threads: dict[str, ThreadMetadata] = {}
        self.items: dict[str, list[ThreadItem]] = defaultdict(list)

    async def load_thread(self, thread_id: str, context: Context) -> ThreadMetadata:
        if thread_id not in self.threads:
            raise NotFoundError
        return self.threads[thread_id]

    async def save_thread(self, thread: ThreadMetadata, context: Context) -> None:
        self.threads[thread.id] = ThreadMetadata(**thread.model_dump(exclude={"items"}))

    async def load_threads(self, limit: int, after: str | None, order: str, context: Context) -> Page[ThreadMetadata]:
        return Page(data=list(self.threads.values())[:limit])

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Context
    ) -> Page[ThreadItem]:
        items = self.items[thread_id]
        return Page(data=(items if order == "asc" else items[::-1])[:limit])

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        self.items[thread_id].append(item)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Context) -> None:
        items = self.items[thread_id]
        items[:] = [item if known.id == item.id else known for known in items]

    async def load_item(self, thread_id: str, item_id: str, context: Context) -> ThreadItem:
        return next(item for item in self.items[thread_id] if item.id == item_id)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Context) -> None:
        self.items[thread_id] = [item for item in self.items[thread_id] if item.id != item_id]

    async def delete_thread(self, thread_id: str, context: Context) -> None:
        self.threads.pop(thread_id)

    async def save_attachment(self, attachment: Attachment, context: Context) -> None:
        raise NotImplementedError

    async def load_attachment(self, attachment_id: str, context: Context) -> Attachment:
        raise NotImplementedError

    async def delete_attachment(self, attachment_id: str, context: Context) -> None:
        raise NotImplementedError


class SampleServer(ChatKitServer[Context]):
    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.agent: Agent[AgentContext[Context]] = Agent(name="Sample", instructions="Answer.", tools=tools())

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Context
    ) -> AsyncIterator[ThreadStreamEvent]:
        recent = await self.store.load_thread_items(thread.id, None, 20, "desc", context)
        running: AgentContext[Context] = AgentContext(thread=thread, store=self.store, request_context=context)
        result = Runner.run_streamed(
            self.agent,
            await simple_to_agent_input(list(reversed(recent.data))),
            context=running,
            run_config=RunConfig(tracing_disabled=True),
        )
        async for event in stream_agent_response(running, result):
            yield event


app = FastAPI()
server = SampleServer()


@app.post("/api/chatkit")
async def chatkit(request: Request) -> Response:
    result = await server.process(await request.body(), {})
    if isinstance(result, StreamingResult):
        return StreamingResponse(result, media_type="text/event-stream")
    return Response(result.json, media_type="application/json")


@app.get("/health/ready")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
