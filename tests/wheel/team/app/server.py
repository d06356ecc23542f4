"""The ChatKit server that the team had before: nothing in it knows of chatkit-postgres."""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

from agents import Agent, Runner, RunContextWrapper, StopAtTools, function_tool
from app.memory import DictStore
from chatkit.actions import Action
from chatkit.agents import AgentContext, ClientToolCall, ThreadItemConverter, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    FeedbackKind,
    StreamOptions,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot

FEEDBACK = Path("feedback.txt")


class TenantContext(AgentContext[Any]):
    tenant: str


@function_tool
async def tenant_name(ctx: RunContextWrapper[TenantContext]) -> str:
    """The tenant of the user."""
    return f"tenant {ctx.context.tenant}, colour {os.environ.get('TEAM_COLOUR', 'none')}"


@function_tool
async def show_counter(ctx: RunContextWrapper[TenantContext]) -> str:
    """A counter with a button."""
    await ctx.context.stream_widget(counter(0))
    return "shown"


@function_tool
async def read_screen(ctx: RunContextWrapper[TenantContext]) -> str:
    """What is on the user's screen."""
    ctx.context.client_tool_call = ClientToolCall(name="screen", arguments={})
    return "asked"


def counter(count: int) -> DynamicWidgetRoot:
    add = {"type": "counter.add", "payload": {"count": count}}
    button = {"type": "Button", "label": "Add", "onClickAction": add}
    text = {"type": "Text", "value": f"count {count}"}
    return DynamicWidgetRoot.model_validate({"type": "Card", "children": [text, button]})


AGENT = Agent[TenantContext](
    name="Team",
    instructions="Help.",
    tools=[tenant_name, show_counter, read_screen],
    tool_use_behavior=StopAtTools(stop_at_tool_names=["read_screen"]),
)


class TeamServer(ChatKitServer[dict[str, Any]]):
    def __init__(self) -> None:
        self.store = DictStore()
        super().__init__(self.store)
        self.converter = ThreadItemConverter()

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: dict[str, Any]
    ) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, after=None, limit=30, order="desc", context=context)
        running = TenantContext(
            thread=thread,
            store=self.store,
            request_context=context,
            tenant=context["request"].headers.get("x-tenant", "unknown"),
        )
        asked = await self.converter.to_agent_input(list(reversed(page.data)))
        result = Runner.run_streamed(AGENT, asked, context=running)
        async for event in stream_agent_response(running, result):
            yield event

    async def action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: dict[str, Any]
    ) -> AsyncIterator[ThreadStreamEvent]:
        count = action.payload["count"] + 1
        if sender is not None:
            yield ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": counter(count)}))
        message = AssistantMessageItem(
            id=self.store.generate_item_id("message", thread, context),
            thread_id=thread.id,
            created_at=datetime.now(),  # noqa: DTZ005 - as the SDK does
            content=[AssistantMessageContent(text=f"Now it is {count}.")],
        )
        yield ThreadItemDoneEvent(item=message)

    def get_stream_options(self, thread: ThreadMetadata, context: dict[str, Any]) -> StreamOptions:
        return StreamOptions(allow_cancel=False)

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: dict[str, Any]
    ) -> None:
        with FEEDBACK.open("a") as file:
            file.writelines(f"{context['user_id']} {thread_id} {item_id} {feedback}\n" for item_id in item_ids)
