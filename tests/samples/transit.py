"""A custom AgentContext whose tools work on it, a client tool, entity tags, a title made beside the answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from agents import Agent, RunContextWrapper, Runner, StopAtTools, function_tool
from chatkit.agents import AgentContext, ClientToolCall, ThreadItemConverter, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    ClientEffectEvent,
    ProgressUpdateEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    UserMessageTagContent,
)
from openai.types.responses import ResponseInputTextParam
from pydantic import ConfigDict, Field

from benchmarks.sample_server import MemoryStore
from chatkit_postgres import AgentAssistant, RequestContext


class Network:
    def __init__(self) -> None:
        self.stations = {"red": ["Ash", "Birch"], "blue": ["Cedar"]}


class TransitContext(AgentContext[Any]):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    network: Annotated[Network, Field(exclude=True)]


Tool = RunContextWrapper[TransitContext]


@function_tool
async def list_stations(ctx: Tool, line: str) -> str:
    """The stations of a line."""
    await ctx.context.stream(ProgressUpdateEvent(text=f"Reading the {line} line"))
    return ", ".join(ctx.context.network.stations[line])


@function_tool
async def add_station(ctx: Tool, line: str, name: str) -> str:
    """Add a station to the end of a line."""
    ctx.context.network.stations[line].append(name)
    await ctx.context.stream(ClientEffectEvent(name="station_added", data={"name": name}))
    return "added"


@function_tool
async def selected_stations(ctx: Tool) -> str:
    """The stations that the user has selected on the map."""
    ctx.context.client_tool_call = ClientToolCall(name="get_selection", arguments={"what": "stations"})
    return "asked"


AGENT = Agent[TransitContext](
    name="Transit",
    instructions="Plan changes of the network.",
    tools=[list_stations, add_station, selected_stations],
    tool_use_behavior=StopAtTools(stop_at_tool_names=["selected_stations"]),
)


def tag_text(tag: UserMessageTagContent) -> str:
    return f"<STATION id={tag.id}>{tag.text}</STATION>"


class Converter(ThreadItemConverter):
    async def tag_to_message_content(self, tag: UserMessageTagContent) -> ResponseInputTextParam:
        return ResponseInputTextParam(type="input_text", text=tag_text(tag))


class TransitServer(ChatKitServer[dict[str, Any]]):
    """As people have it: a store of its own, contexts as dicts, a title made beside the answer."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        super().__init__(self.store)
        self.network = Network()
        self.converter = Converter()

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: dict[str, Any]
    ) -> AsyncIterator[ThreadStreamEvent]:
        titling = asyncio.create_task(self._title(thread, input_user_message, context))
        page = await self.store.load_thread_items(thread.id, after=None, limit=20, order="desc", context=context)
        running = TransitContext(thread=thread, store=self.store, request_context=context, network=self.network)
        asked = await self.converter.to_agent_input(list(reversed(page.data)))
        result = Runner.run_streamed(AGENT, asked, context=running)
        async for event in stream_agent_response(running, result):
            yield event
        await titling

    async def _title(self, thread: ThreadMetadata, message: UserMessageItem | None, context: dict[str, Any]) -> None:
        if message is None or thread.title is not None:
            return
        titled = await Runner.run(
            Agent(name="Title", instructions="A title."), await self.converter.to_agent_input([message])
        )
        thread.title = f"T: {titled.final_output}"[:60]
        await self.store.save_thread(thread, context=context)


class TransitAssistant(AgentAssistant):
    def __init__(self) -> None:
        super().__init__(AGENT)
        self.network = Network()

    async def agent_context(self, context: AgentContext[RequestContext]) -> TransitContext:
        return TransitContext(
            thread=context.thread,
            store=context.store,
            request_context=context.request_context,
            network=self.network,
        )

    async def resolve_tag(self, tag: UserMessageTagContent, context: AgentContext[RequestContext]) -> str:
        return tag_text(tag)

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        text = await super().title(message, context)
        return f"T: {text}"[:60]
