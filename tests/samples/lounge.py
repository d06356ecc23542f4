"""A list whose rows the page handles first and sends on; effects for the page, and context that is hidden from it."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Any

from agents import Agent, RunContextWrapper, Runner, function_tool
from chatkit.actions import Action
from chatkit.agents import AgentContext, ThreadItemConverter, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClientEffectEvent,
    HiddenContextItem,
    SyncCustomActionResponse,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot
from openai.types.responses import ResponseInputTextParam
from openai.types.responses.response_input_item_param import Message
from pydantic import BaseModel

from chatkit_postgres import AgentAssistant, RequestContext, action

NAMES = ("Mochi", "Pixel", "Tofu")


def name_list(chosen: str | None = None) -> DynamicWidgetRoot:
    def row(name: str) -> dict[str, Any]:
        label = f"{name} (chosen)" if name == chosen else name
        select = {"type": "name.select", "payload": {"name": name}, "handler": "client"}
        return {"type": "ListViewItem", "children": [{"type": "Text", "value": label}], "onClickAction": select}

    return DynamicWidgetRoot.model_validate({"type": "ListView", "children": [row(name) for name in NAMES]})


@function_tool
async def suggest_names(ctx: RunContextWrapper[AgentContext[Any]]) -> str:
    """Show names to choose from."""
    await ctx.context.stream_widget(name_list())
    return "shown"


AGENT = Agent[Any](name="Lounge", instructions="Name a cat.", tools=[suggest_names])


class HiddenContextConverter(ThreadItemConverter):
    async def hidden_context_to_input(self, item: HiddenContextItem) -> Message:
        part = ResponseInputTextParam(type="input_text", text=str(item.content))
        return Message(type="message", role="user", content=[part])


def steps(
    name: str, sender: WidgetItem | None, thread: ThreadMetadata, ids: tuple[str, str]
) -> list[ThreadStreamEvent]:
    """What choosing a name brings about: the row marked, the choice for the model's eyes, a question, an effect."""
    common = {"thread_id": thread.id, "created_at": datetime.now()}  # noqa: DTZ005 - as the SDK does
    chosen = HiddenContextItem(id=ids[0], content=f"<CHOSEN>{name}</CHOSEN>", **common)
    text = AssistantMessageContent(text=f"{name} it is. Where does it sleep?")
    question = AssistantMessageItem(id=ids[1], content=[text], **common)
    marked: list[ThreadStreamEvent] = []
    if sender is not None:
        marked = [ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": name_list(name)}))]
    return [
        *marked,
        ThreadItemDoneEvent(item=chosen),
        ThreadItemDoneEvent(item=question),
        ClientEffectEvent(name="name_chosen", data={"name": name}),
    ]


class LoungeServer(ChatKitServer[dict[str, Any]]):
    def __init__(self, store: Any) -> None:
        super().__init__(store)

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: dict[str, Any]
    ) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, None, 20, "desc", context)
        asked = await HiddenContextConverter().to_agent_input(list(reversed(page.data)))
        running = AgentContext[Any](thread=thread, store=self.store, request_context=context)
        async for event in stream_agent_response(running, Runner.run_streamed(AGENT, asked, context=running)):
            yield event

    async def action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: dict[str, Any]
    ) -> AsyncIterator[ThreadStreamEvent]:
        if action.type != "name.select":
            return
        ids = tuple(self.store.generate_item_id("message", thread, context) for _ in range(2))
        for event in steps(action.payload["name"], sender, thread, (ids[0], ids[1])):
            # Some servers add hidden context to the store themselves.
            if isinstance(event, ThreadItemDoneEvent) and isinstance(event.item, HiddenContextItem):
                await self.store.add_thread_item(thread.id, event.item, context=context)
            else:
                yield event

    async def sync_action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: dict[str, Any]
    ) -> SyncCustomActionResponse:
        if sender is None:
            return SyncCustomActionResponse()
        marked = sender.model_copy(update={"widget": name_list(action.payload["name"])})
        return SyncCustomActionResponse(updated_item=marked)


class Chosen(BaseModel):
    name: str


class LoungeAssistant(AgentAssistant):
    def __init__(self) -> None:
        super().__init__(AGENT, converter=HiddenContextConverter())

    @action("name.select", Chosen)
    async def select(
        self, payload: Chosen, sender: WidgetItem | None, context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        ids = (context.generate_id("message"), context.generate_id("message"))
        for event in steps(payload.name, sender, context.thread, ids):
            yield event
