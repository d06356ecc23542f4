"""Assistants that test servers run."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from agents import (
    Agent,
    GuardrailFunctionOutput,
    ImageGenerationTool,
    RunContextWrapper,
    Runner,
    StopAtTools,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
)
from agents.items import TResponseStreamEvent
from chatkit.agents import AgentContext, ClientToolCall
from chatkit.errors import CustomStreamError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientToolCallItem,
    CustomTask,
    HiddenContextItem,
    ProgressUpdateEvent,
    StructuredInputFreeform,
    StructuredInputItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    UserMessageItem,
    UserMessageTagContent,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot

from chatkit_postgres.assistant import AgentAssistant, Assistant, Refusal, action
from chatkit_postgres.assistant.actions import ActionResult
from chatkit_postgres.assistant.base import SendDelta
from chatkit_postgres.assistant.demo.model import DemoModel
from chatkit_postgres.context import RequestContext

BUTTON = {"type": "Card", "children": [{"type": "Button", "label": "Press", "onClickAction": {"type": "press"}}]}


@action("press")
async def press(_payload: object, _sender: WidgetItem | None, _context: AgentContext[RequestContext]) -> ActionResult:
    return DynamicWidgetRoot.model_validate(BUTTON | {"size": "full"})


def build() -> AgentAssistant:
    """Streams the model server's response; has an action that replaces a widget."""
    return AgentAssistant(Agent(name="Scripted", instructions="Answer."), actions=[press])


@function_tool
async def show_card(ctx: RunContextWrapper[AgentContext[RequestContext]]) -> str:
    """Show a button."""
    await ctx.context.stream_widget(DynamicWidgetRoot.model_validate(BUTTON))
    return "shown"


def build_with_card() -> Agent[AgentContext[RequestContext]]:
    return Agent(name="Showing", instructions="Show.", tools=[show_card])


@function_tool
async def ask_title(ctx: RunContextWrapper[AgentContext[RequestContext]]) -> str:
    """Ask the browser for the title of its page."""
    ctx.context.client_tool_call = ClientToolCall(name="get_page_title", arguments={})
    return "asked"


@function_tool
async def ask_selection(ctx: RunContextWrapper[AgentContext[RequestContext]], of: str = "page") -> str:
    """Ask the browser for what is selected in it."""
    ctx.context.client_tool_call = ClientToolCall(name="get_selection", arguments={"of": of})
    return "asked"


def build_with_client_tools() -> Agent[AgentContext[RequestContext]]:
    """An agent with two client tools that one response may call, two server tools, and a handoff."""
    clerk: Agent[AgentContext[RequestContext]] = Agent(name="Clerk", instructions="Answer.", tools=[echo])
    return Agent(
        name="Asking",
        instructions="Ask.",
        tools=[ask_title, ask_selection, echo, recite],
        handoffs=[clerk],
        tool_use_behavior=StopAtTools(stop_at_tool_names=["ask_title", "ask_selection"]),
    )


@function_tool
async def echo(words: str) -> str:
    """Say the words."""
    return words


@function_tool
async def recite(characters: int) -> str:
    """Say so much."""
    return "begin " + "z" * characters + " end"


BROKEN_TEXTS = {"half": "a \ud83d b", "other half": "\udfff", "nul": "a\x00b", "pair": "\ud83d\ude00"}


@function_tool
async def broken_text(kind: str) -> str:
    """Say what cannot be encoded."""
    return BROKEN_TEXTS[kind]


class SaysBrokenText(AgentAssistant):
    async def resolve_tag(self, tag: UserMessageTagContent, context: AgentContext[RequestContext]) -> str:
        return BROKEN_TEXTS.get(tag.id, tag.id)


def build_with_broken_text() -> AgentAssistant:
    instructions = "Answer. " + " ".join(BROKEN_TEXTS.values())
    return SaysBrokenText(Agent(name="Broken", instructions=instructions, tools=[broken_text]))


@function_tool
async def look_at_page(ctx: RunContextWrapper[AgentContext[RequestContext]]) -> str:
    """Ask the browser for the title of its page."""
    await ctx.context.add_workflow_task(CustomTask(title="Looking at the page"))
    ctx.context.client_tool_call = ClientToolCall(name="get_page_title", arguments={"trim": True})
    return "asked"


def build_with_client_tool() -> Agent[AgentContext[RequestContext]]:
    stop = StopAtTools(stop_at_tool_names=["look_at_page"])
    return Agent(name="Looking", instructions="Look.", tools=[look_at_page], tool_use_behavior=stop)


def build_with_images() -> Agent[AgentContext[RequestContext]]:
    tool = ImageGenerationTool(tool_config={"type": "image_generation", "partial_images": 2})
    return Agent(name="Drawing", instructions="Draw.", tools=[tool])


@input_guardrail
async def no_poison(
    _context: RunContextWrapper[Any], _agent: Agent[Any], given: str | list[Any]
) -> GuardrailFunctionOutput:
    """Checks the whole input of the model, as guardrails do."""
    is_poisoned = "POISON" in json.dumps(given)
    return GuardrailFunctionOutput(Refusal("We do not talk about poison."), tripwire_triggered=is_poisoned)


@output_guardrail
async def no_secrets(_context: RunContextWrapper[Any], _agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput({"why": "INTERNAL"}, tripwire_triggered="SECRET" in str(output))


@function_tool
async def who_am_i(ctx: RunContextWrapper[AgentContext[RequestContext]]) -> str:
    """Who asks, from where, and what their page says."""
    asking = ctx.context.request_context
    return json.dumps(
        {"user": asking.user_id, "claims": dict(asking.claims), "locale": asking.locale, "said": asking.client_context}
    )


@tool_input_guardrail
def nothing_forbidden(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
    if "FORBIDDEN" in data.context.tool_arguments:
        return ToolGuardrailFunctionOutput.raise_exception(Refusal("That is not looked up."))
    return ToolGuardrailFunctionOutput.allow()


@function_tool(tool_input_guardrails=[nothing_forbidden])
def look_up(what: str) -> str:
    """Look something up."""
    return f"Looked up {what}."


@function_tool
def broken(words: str) -> str:
    """A tool with a mistake in it."""
    raise KeyError(words)


@function_tool
async def for_the_user(words: str) -> str:
    """A tool that has something to tell the user."""
    raise CustomStreamError(words, allow_retry=True)


def build_with_broken_tools() -> Agent[AgentContext[RequestContext]]:
    inner: Agent[AgentContext[RequestContext]] = Agent(name="Inner", instructions="Answer.", tools=[for_the_user])
    # Streamed, as the model of the tests answers with tools.
    asking = inner.as_tool("ask_another", "Another agent.", on_stream=lambda _: None)
    return Agent(name="Broken", instructions="Answer.", tools=[broken, for_the_user, look_up, asking])


@action("where", free=True)
async def where(_payload: object, _sender: WidgetItem | None, context: AgentContext[RequestContext]) -> ActionResult:
    raise CustomStreamError(json.dumps(context.request_context.client_context), allow_retry=False)


def build_guarded() -> AgentAssistant:
    agent: Agent[AgentContext[RequestContext]] = Agent(
        name="Guarded",
        instructions="Answer.",
        tools=[who_am_i, look_up],
        input_guardrails=[no_poison],
        output_guardrails=[no_secrets],
    )
    return AgentAssistant(agent, actions=[where])


@input_guardrail
async def judged(
    _context: RunContextWrapper[Any], _agent: Agent[Any], given: str | list[Any]
) -> GuardrailFunctionOutput:
    """Runs another agent to judge the input, as guardrails do."""
    verdict = await _run_of_its_own(f"Is this fine? {json.dumps(given)}")
    return GuardrailFunctionOutput(None, tripwire_triggered="You said" not in verdict)


class RunsOfItsOwn(AgentAssistant):
    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        return await _run_of_its_own(f"Title of {context.request_context.user_id}")


async def _run_of_its_own(words: str) -> str:
    run = Runner.run_streamed(Agent(name="Another", instructions="Answer."), words)
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


def build_with_runs_of_its_own() -> AgentAssistant:
    return RunsOfItsOwn(Agent(name="Main", instructions="Answer.", input_guardrails=[judged]))


class Brief(Assistant):
    """Responds to every message with one word, without deltas."""

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        answer = [AssistantMessageContent(text="Yes")]
        created_at = datetime.now()  # noqa: DTZ005 - as the SDK does
        yield ThreadItemDoneEvent(
            item=AssistantMessageItem(id="answer", thread_id=context.thread.id, created_at=created_at, content=answer)
        )


class Echo(Assistant):
    """Streams the text of the user's messages back in deltas; some responses add a question or a client tool call."""

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        common = {"thread_id": context.thread.id, "created_at": datetime.now()}  # noqa: DTZ005 - as the SDK does
        text = " ".join(item.content[0].text for item in history if isinstance(item, UserMessageItem))[-400:]
        yield ProgressUpdateEvent(text=text[-100:])
        answer = AssistantMessageItem(id="answer", content=[AssistantMessageContent(text="")], **common)
        yield ThreadItemAddedEvent(item=answer)
        for start in range(0, len(text), 40):
            update = AssistantMessageContentPartTextDelta(content_index=0, delta=text[start : start + 40])
            yield ThreadItemUpdatedEvent(item_id=answer.id, update=update)
            await asyncio.sleep(0.002)
        yield ThreadItemDoneEvent(item=answer.model_copy(update={"content": [AssistantMessageContent(text=text)]}))
        hidden = HiddenContextItem(id="hidden", content=f"HIDDEN {text}", **common)
        yield ThreadItemDoneEvent(item=hidden)
        match len(text) % 4:
            case 1:
                question = StructuredInputFreeform(id="why", question=text)
                yield ThreadItemDoneEvent(item=StructuredInputItem(id="question", inputs=[question], **common))
            case 2:
                call = {"id": "call", "call_id": "call", "name": "look", "arguments": {"told": text}}
                yield ThreadItemDoneEvent(item=ClientToolCallItem(**call, **common))
            case 3 if "fail" in text:
                raise RuntimeError(text)


class KeepingModel(DemoModel):
    """Calls the tool ``keep`` with the conversation, and repeats what the tool has said."""

    async def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        instructions, conversation, settings, *others = given
        if conversation[-1].get("type") != "function_call_output":
            conversation = [{"role": "user", "content": f"keep {str(conversation)[-400:]}"}]
        async for event in super().stream_response(instructions, conversation, settings, *others, **more):
            yield event


@function_tool(needs_approval=True)
async def keep(text: str) -> str:
    """Repeat the text."""
    return text


class EchoThatAsks(AgentAssistant):
    """Echo; some responses are those of an agent whose tool needs an approval."""

    def __init__(self) -> None:
        super().__init__(Agent(name="Keeper", tools=[keep], model=KeepingModel(0)))

    def stream(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], send_delta: SendDelta
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        is_resumed = context.request_context.history_notes.paused_run is not None
        if is_resumed or (len(history) % 3 == 0 and isinstance(history[-1], UserMessageItem)):
            return super().stream(history, context, send_delta)
        return Echo().respond(history, context)


class AsksTheClient(Assistant):
    """Responds to a message with a question and a client tool call, and to each of their results with its text.

    An output of ``"fail"`` fails the turn after half an answer.
    """

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        common = {"thread_id": context.thread.id, "created_at": datetime.now()}  # noqa: DTZ005 - as the SDK does
        last = next(item for item in reversed(history) if not isinstance(item, AssistantMessageItem))
        match last:
            case UserMessageItem():
                question = StructuredInputFreeform(id="why", question="Why?")
                asked = StructuredInputItem(id=context.generate_id("message"), inputs=[question], **common)
                yield ThreadItemDoneEvent(item=asked)
                call = ClientToolCallItem(
                    id=context.generate_id("tool_call"), call_id="call", name="look", arguments={}, **common
                )
                yield ThreadItemDoneEvent(item=call)
            case _:
                text = last.output if isinstance(last, ClientToolCallItem) else "an answer"
                answer = AssistantMessageItem(
                    id=context.generate_id("message"), content=[AssistantMessageContent(text=f"Got {text}.")], **common
                )
                if text == "fail":
                    yield ThreadItemAddedEvent(item=answer)
                    raise RuntimeError("as the output says")
                yield ThreadItemDoneEvent(item=answer)


def build_handing_over(*, remember_agent: bool = True) -> AgentAssistant:
    """The reception hands over to the plumber or, through ``handoff()``, to the painter, who hand back."""
    reception = Agent[Any](name="Reception", instructions="You are the reception.")
    plumber = Agent[Any](name="Plumber", instructions="You are the plumber.", handoffs=[reception])
    painter = Agent[Any](name="Painter", instructions="You are the painter.", handoffs=[reception])
    reception.handoffs = [plumber, handoff(painter)]
    return AgentAssistant(reception, remember_agent=remember_agent)


def build_forgetting() -> AgentAssistant:
    return build_handing_over(remember_agent=False)
