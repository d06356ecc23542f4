"""A ``ChatKitServer`` as teams write one, for tests that run with any assistant."""

from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Runner
from chatkit.actions import Action
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import ThreadItemReplacedEvent, ThreadMetadata, ThreadStreamEvent, UserMessageItem, WidgetItem
from chatkit.widgets import DynamicWidgetRoot

from benchmarks.sample_server import MemoryStore
from tests.support.assistants import BUTTON

AGENT = Agent[Any](name="Scripted", instructions="Answer.")
MAX_ITEMS = 100


class ScriptedServer(ChatKitServer[Any]):
    """Does the same as ``tests.support.assistants:build``: streams the model server's response, and has an action."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, None, MAX_ITEMS, "desc", context)
        running = AgentContext[Any](thread=thread, store=self.store, request_context=context)
        asked = await simple_to_agent_input(list(reversed(page.data)))
        async for event in stream_agent_response(running, Runner.run_streamed(AGENT, asked, context=running)):
            yield event

    async def action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        if sender is not None:
            pressed = DynamicWidgetRoot.model_validate(BUTTON | {"size": "full"})
            yield ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": pressed}))
