"""Assistants whose tools ask for an approval: agents of all kinds, and a team's ChatKitServer."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from agents import (
    Agent,
    GuardrailFunctionOutput,
    HandoffInputData,
    RunContextWrapper,
    Runner,
    StopAtTools,
    function_tool,
    handoff,
    output_guardrail,
)
from chatkit.agents import AgentContext, ClientToolCall, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import ThreadItemRemovedEvent, ThreadMetadata, ThreadStreamEvent, UserMessageItem, WidgetItem
from chatkit.widgets import DynamicWidgetRoot, WidgetRoot

from chatkit_postgres import AgentAssistant, ApprovalRequest, RequestContext, action, approvals
from tests.support.effects import effect

Context = RunContextWrapper[AgentContext[RequestContext]]


@function_tool(needs_approval=True)
async def pay(note: str, before: float = 0, after: float = 0) -> str:
    """Pay."""
    await effect(note, before=before, after=after)
    return f"paid {note}"


async def is_much(_context: RunContextWrapper[Any], arguments: dict[str, Any], _call_id: str) -> bool:
    return int(arguments.get("amount", 0)) > 100


@function_tool(needs_approval=is_much)
async def transfer(note: str, amount: int) -> str:
    """Transfer an amount."""
    await effect(note)
    return f"transferred {amount} for {note}"


@function_tool
async def look_up(what: str) -> str:
    """Look something up."""
    return f"{what}: the secret number is {len(what) * 1001}"


@function_tool(needs_approval=True)
async def fail(note: str) -> str:
    """Pay, and fail."""
    await effect(note)
    raise RuntimeError("after the effect")


def _agent(**more: Any) -> Agent[Any]:
    return Agent(name="Clerk", instructions="Pay.", tools=[pay, transfer, look_up, fail], **more)


def build() -> Agent[Any]:
    return _agent()


def build_with_handoff() -> Agent[Any]:
    return Agent(name="Reception", instructions="Receive.", handoffs=[_agent()])


def only_newest(data: HandoffInputData) -> HandoffInputData:
    return data.clone(input_history=data.input_history[-1:])


def build_with_filtered_handoff() -> Agent[Any]:
    """The clerk receives less than the reception."""
    return Agent(name="Reception", instructions="Receive.", handoffs=[handoff(_agent(), input_filter=only_newest)])


def build_with_agent_as_tool() -> Agent[Any]:
    inner = _agent()
    return Agent(
        name="Reception",
        instructions="Receive.",
        tools=[
            look_up,
            pay,
            inner.as_tool("ask_clerk", "Ask the clerk."),
            inner.as_tool("ask_after_approval", "Ask the clerk.", needs_approval=True),
        ],
    )


def build_plain() -> Agent[Any]:
    """Without tools of its own: those of MCP servers."""
    return Agent(name="Clerk", instructions="Pay.")


class OwnCards(AgentAssistant):
    """Cards and labels of a team."""

    def approval_card(self, request: ApprovalRequest, context: AgentContext[RequestContext]) -> WidgetRoot:
        button = {"type": "Button", "label": "Go", "onClickAction": request.approve.model_dump()}
        asked = {"type": "Text", "value": f"{context.request_context.user_id}: {request.label} ({request.state})"}
        return DynamicWidgetRoot.model_validate(
            {"type": "Card", "children": [asked, *([button] if request.state == "waiting" else [])]}
        )

    def tool_label(self, name: str, arguments: Any) -> str | None:
        if name == "look_up":
            return None
        return f"{name} for {arguments.get('note', '?')}"


class BrokenCards(AgentAssistant):
    def approval_card(self, request: ApprovalRequest, context: AgentContext[RequestContext]) -> WidgetRoot:
        raise KeyError("a team's mistake")

    def tool_label(self, name: str, arguments: Any) -> str | None:
        raise KeyError("a team's mistake")


def build_own_cards() -> AgentAssistant:
    return OwnCards(_agent())


def build_broken_cards() -> AgentAssistant:
    return BrokenCards(_agent())


class ApprovingServer(ChatKitServer[RequestContext]):
    """A server of a team, that asks with one line."""

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        agent_context = AgentContext[RequestContext](thread=thread, store=self.store, request_context=context)
        page = await self.store.load_thread_items(thread.id, None, 20, "asc", context)
        run = Runner.run_streamed(_agent(), await simple_to_agent_input(page.data), context=agent_context)
        async for event in stream_agent_response(agent_context, run):
            yield event
        await approvals(run, agent_context)


class ForgetfulServer(ChatKitServer[RequestContext]):
    """Its runs do not go on: it runs another agent after an answer."""

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        agent_context = AgentContext[RequestContext](thread=thread, store=self.store, request_context=context)
        agent = _agent() if input_user_message is not None else Agent[Any](name="Other", instructions="Talk.")
        run = Runner.run_streamed(agent, json.dumps({}) if input_user_message is None else _text(input_user_message))
        async for event in stream_agent_response(agent_context, run):
            yield event
        await approvals(run, agent_context)


def _text(message: UserMessageItem) -> str:
    return "".join(part.text for part in message.content)


def build_silent() -> Agent[Any]:
    """Ends with the output of its tool, without a word."""
    return _agent(tool_use_behavior="stop_on_first_tool")


@function_tool
async def recite_slowly() -> str:
    """Takes its time."""
    await asyncio.sleep(30)
    return "recited"


def build_slow() -> Agent[Any]:
    return Agent(name="Slow", instructions="Be slow.", tools=[look_up, recite_slowly])


@function_tool
async def ask_page(context: Context) -> str:
    """Ask the page."""
    context.context.client_tool_call = ClientToolCall(name="get_page", arguments={})
    return "asked"


class SlowlyTitled(AgentAssistant):
    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        await asyncio.sleep(2)
        return "A title at last"


def build_slowly_titled() -> AgentAssistant:
    return SlowlyTitled(_agent(), actions=[delete])


def build_with_client_tool() -> Agent[Any]:
    behaviour = StopAtTools(stop_at_tool_names=["ask_page"])
    return Agent(name="Clerk", instructions="Pay.", tools=[pay, ask_page], tool_use_behavior=behaviour)


@output_guardrail
async def always_fine(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


def build_guarded() -> Agent[Any]:
    return _agent(output_guardrails=[always_fine])


@action("delete", dict[str, str], free=True)
async def delete(
    payload: dict[str, str], _sender: WidgetItem | None, context: AgentContext[RequestContext]
) -> AsyncGenerator[ThreadStreamEvent, None]:
    item = await context.store.load_item(context.thread.id, payload["item_id"], context.request_context)
    yield ThreadItemRemovedEvent(item_id=item.id)


def build_deleting() -> AgentAssistant:
    return AgentAssistant(_agent(), actions=[delete])
