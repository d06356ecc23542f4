"""The assistant of development mode: an agent on the demo model, and a scene for each keyword."""

import re
from collections.abc import AsyncGenerator, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agents import Agent, function_tool
from chatkit.agents import AgentContext
from chatkit.types import (
    ClientToolCallItem,
    StructuredInputItem,
    ThreadItem,
    ThreadItemReplacedEvent,
    ThreadStreamEvent,
    UserMessageItem,
    WidgetItem,
)
from pydantic import BaseModel, Field

from chatkit_postgres.assistant.actions import ActionResult, action
from chatkit_postgres.assistant.agent import AgentAssistant
from chatkit_postgres.assistant.demo import widgets
from chatkit_postgres.assistant.demo.replies import prompts_for
from chatkit_postgres.assistant.demo.scene import Context, says
from chatkit_postgres.assistant.demo.scenes import SCENES
from chatkit_postgres.context import RequestContext

MAX_REQUEST = 40
"""Characters. A longer message is not a request for a scene."""


TOOL = "a tool that the model calls"
APPROVAL = "approval"
ASK_FIRST = "Ask for my approval, then delete drafts."
MEMORY = "What do you remember?"


@function_tool(name_override=APPROVAL, needs_approval=True)
def delete_drafts(count: int = 3) -> str:
    """Delete old drafts, as far as a demo has any."""
    return f"{count} drafts are deleted"


_CAREFUL = Agent[Any](name="Demo", instructions="Ask before you delete.", tools=[delete_drafts])


class Pressed(BaseModel):
    count: int = Field(ge=0, le=1_000_000)


class Chosen(BaseModel):
    name: str = Field(max_length=100)


class Submitted(BaseModel):
    name: str = Field(min_length=1, max_length=100)


class Topic(BaseModel):
    about: str = Field(max_length=100)


class DemoAssistant(AgentAssistant):
    def __init__(self, agent: Agent[Any]) -> None:
        super().__init__(agent)
        named = dict.fromkeys(prompts_for(agent.tools), TOOL)
        scenes = {scene.prompt: scene.shows for scene in (SCENES["markdown"], SCENES["form"])}
        asking = {ASK_FIRST: "a tool that needs your approval"}
        self.start_prompts = MappingProxyType(dict(list(named.items())[:1]) | scenes | asking)
        groups: dict[str, dict[str, str]] = {}
        for scene in SCENES.values():
            groups.setdefault(scene.group, {})[scene.prompt] = scene.shows
        groups["Tools"] |= named
        groups["Approvals"] = asking | {MEMORY: "what tools have said before"}
        self.more_prompts = MappingProxyType(groups)

    async def agent(self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]) -> Agent[Any]:
        newest = next((item for item in reversed(history) if isinstance(item, UserMessageItem)), None)
        is_asking = newest is not None and self._word_of(newest, {APPROVAL}) is not None
        return _CAREFUL if is_asking else await super().agent(history, context)

    def tool_label(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        return "Delete old drafts" if name == APPROVAL else super().tool_label(name, arguments)

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        async for event in self._scene_or_answer(history, context):
            yield event

    def _scene_or_answer(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        match history[-1] if history else None:
            case UserMessageItem() as message if (keyword := self._word_of(message, SCENES)) is not None:
                return SCENES[keyword].play(context)
            case ClientToolCallItem(output=output):
                return says(context, f"Your browser says: {_told(output)[:500]}")
            case StructuredInputItem() as answered:
                return says(context, _answers(answered))
            case _:
                return super().respond(history, context)

    def _word_of(self, message: UserMessageItem, keywords: Container[str]) -> str | None:
        """The keyword in a message; None if it is in the name of one of the agent's tools, which take precedence."""
        keyword = keyword_of(message, keywords)
        names = (tool.name for tool in self.default_agent.tools)
        return None if any(keyword in name.lower().split("_") for name in names) else keyword

    @action("demo.press", Pressed)
    async def press(self, payload: Pressed, _sender: WidgetItem | None, _context: Context) -> ActionResult:
        return widgets.buttons(payload.count + 1)

    @action("demo.choose", Chosen)
    async def choose(self, payload: Chosen, _sender: WidgetItem | None, _context: Context) -> ActionResult:
        return widgets.list_view(payload.name)

    @action("demo.submit", Submitted)
    async def submit(
        self, payload: Submitted, sender: WidgetItem | None, context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        if sender is not None:
            sent = sender.model_copy(update={"widget": widgets.form(f"Sent for {payload.name}")})
            yield ThreadItemReplacedEvent(item=sent)
        async for event in says(context, f"Thank you, {payload.name}."):
            yield event

    @action("demo.tell", Topic)
    async def tell_more(
        self, payload: Topic, _sender: WidgetItem | None, context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        async for event in says(context, f"There is more to say about {payload.about} than fits here."):
            yield event

    @action("demo.ping", free=True)
    async def ping(
        self, _payload: object, _sender: WidgetItem | None, context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """A free action, for a button outside of the chat."""
        async for event in says(context, "Pong."):
            yield event


def keyword_of(message: UserMessageItem, keywords: Container[str]) -> str | None:
    """The first of the keywords in a short message."""
    text = " ".join(part.text for part in message.content)
    words = re.findall(r"[a-z]+", text.lower()) if len(text) <= MAX_REQUEST else []
    return next((word for word in words if word in keywords), None)


def _told(output: object) -> str:
    """As people write it."""
    if not isinstance(output, Mapping):
        return str(output)
    return ", ".join(f"{name} “{value}”" for name, value in output.items())


def _answers(item: StructuredInputItem) -> str:
    if item.status == "skipped":
        return "You skipped the questions."
    given = [
        f"{question.question} {', '.join(question.answer.values)}"
        for question in item.inputs
        if question.answer is not None and question.answer.values
    ]
    return "You answered: " + ("; ".join(given) or "nothing")
