"""The interface of an assistant, which is independent of HTTP and SQL."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from agents import ModelProvider
from chatkit.agents import AgentContext
from chatkit.types import (
    AudioInput,
    FeedbackKind,
    StreamOptions,
    ThreadItem,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    UserMessageItem,
    UserMessageTagContent,
)
from chatkit.widgets import WidgetRoot

from chatkit_postgres.assistant.actions import RegisteredAction, rules_of
from chatkit_postgres.assistant.approvals.requests import ApprovalRequest, approval_card
from chatkit_postgres.assistant.model_servers.speech import Transcriber
from chatkit_postgres.assistant.runs import FollowedRuns
from chatkit_postgres.assistant.titles import title_of
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotSupported

if TYPE_CHECKING:
    from chatkit_postgres.assistant.tools.mcp_servers import McpServers

SendDelta = Callable[[ThreadStreamEvent], Awaitable[None]]
LoadHistory = Callable[[], Awaitable[Sequence[ThreadItem]]]


@dataclass(frozen=True)
class Choices:
    """The models and tools that a message may name in its ``inference_options``; others are refused."""

    models: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()

    def allows_model(self, name: str) -> bool:
        return name in self.models

    def allows_tool(self, tool_id: str) -> bool:
        return tool_id in self.tools


class OpenChoices(Choices):
    """For an assistant that checks choices itself: all are allowed that the settings do not limit."""

    def allows_model(self, name: str) -> bool:
        return not self.models or name in self.models

    def allows_tool(self, tool_id: str) -> bool:
        return not self.tools or tool_id in self.tools


@dataclass(frozen=True)
class Services:
    """What a server offers to its assistant."""

    database: Database | None = None
    transcriber: Transcriber | None = None
    """Set when ``CHAT_TRANSCRIPTION_MODEL`` is."""
    mcp: "McpServers | None" = None
    """Set when ``CHAT_MCP_FILE`` is; its tools are added to an agent's own."""
    is_traced: bool = False
    """Set by ``CHAT_TRACING``."""
    shows_tool_calls: bool = True
    """Set by ``CHAT_SHOW_TOOL_CALLS``: calls of an agent's tools are shown as tasks."""
    can_search: bool = False
    """Set by ``CHAT_SEARCH_TOOL``: an agent has the tool that searches conversations."""
    remembers_tool_calls: bool = True
    """False if ``CHAT_TOOL_MEMORY_TOKENS`` is 0: what an agent's tools said is forgotten after the turn."""


NO_SERVICES = Services()


class Assistant(ABC):
    """The source of answers. A subclass must define ``respond`` only; an ``agents.Agent`` needs no subclass.

    Methods marked with ``@action`` handle the actions of widgets.
    """

    name: str | None = None
    """What front ends call it, unless ``CHAT_ASSISTANT_NAME`` is set; of an AgentAssistant, its agent's name."""
    choices = Choices()
    own_tool_choices: frozenset[str] = frozenset()
    """Ids of tool choices that the assistant handles itself, by choosing an agent or another way to answer. These ids
    are accepted like those of ``CHAT_ALLOWED_TOOLS``, but are not demanded of a model."""
    start_prompts: Mapping[str, str] = MappingProxyType({})
    """Prompts that front ends propose in an empty conversation, each with a description of its effect."""
    more_prompts: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    """Prompts by group, which the playground shows after "Show everything"."""
    services = Services()
    """The server's, set by ``prepare``."""

    @property
    def database(self) -> Database | None:
        """The server's database, for tables of your own. Hold no connection during a run."""
        return self.services.database

    def stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        """The options for the client of an answer's stream."""
        return StreamOptions(allow_cancel=True)

    async def add_feedback(  # noqa: B027 - most assistants leave it at that
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        """Called after each feedback has been saved."""

    @abstractmethod
    def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Stream the events of one answer.

        ``history`` has the items of the thread, oldest first; the last item is the one to answer. Items that are
        yielded as done are committed before the client receives them. When the turn is stopped, CancelledError is
        raised at the current ``await``: end the model's stream in a ``finally``.
        """
        ...

    def stream(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], send_delta: SendDelta
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Called by ``answer``: ``respond``, unless a subclass sends text deltas directly, which is faster.

        ``send_delta`` sends a delta after all events that were yielded or sent before.
        """
        return self.respond(history, context)

    async def answer(
        self,
        message: UserMessageItem | None,
        context: AgentContext[RequestContext],
        load_history: LoadHistory,
        send_delta: SendDelta,
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Called by the server for each answer; ``message`` is the one to answer, or None after a client tool's output
        or answered questions."""
        async with aclosing(self.stream(await load_history(), context, send_delta)) as events:
            async for event in events:
                yield event

    def runs_of(self, request: RequestContext) -> FollowedRuns | None:
        """Follows the Agents SDK's runs that start while the request is handled; None if none can."""
        return None

    def prepare(self, models: ModelProvider, choices: Choices, services: Services = NO_SERVICES) -> None:
        """Called once after loading, before the first request: with the configured models, the choices that the
        settings allow, and the services of the server."""
        self.services = services
        # A subclass may have written a list.
        self.choices = replace(choices, tools=choices.tools.union(self.own_tool_choices))

    def find_action(self, action_type: str) -> RegisteredAction | None:
        """The handler of an action: the method that is marked with its type."""
        for kind in type(self).__mro__:
            for name, attribute in vars(kind).items():
                rules = rules_of(attribute)
                if rules is not None and rules.type == action_type:
                    # By its name, because a subclass may override the method.
                    return RegisteredAction(rules, getattr(self, name))
        return None

    def approval_card(self, request: ApprovalRequest, context: AgentContext[RequestContext]) -> WidgetRoot:
        """The card that asks whether a tool may be called, and shows the answer. Override this method to show it
        another way: a component with the action ``request.approve`` approves, one with ``request.refuse`` refuses.
        Called again for each new ``request.state``."""
        return approval_card(request)

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        """Make a title for a new thread, during its first answer; a title set by the user is never overwritten."""
        return title_of(message)

    async def resolve_tag(self, tag: UserMessageTagContent, context: AgentContext[RequestContext]) -> str:
        """The model input about an entity that the user mentioned. ``tag.data`` is unverified input of the client: look
        the entity up by ``tag.id``, with the permissions of ``context.request_context.user_id``."""
        return f"@{tag.text}: {json.dumps(tag.data, ensure_ascii=False)}"

    async def transcribe(self, audio: AudioInput, context: RequestContext) -> TranscriptionResult:
        """Transcribe speech with the configured model, if there is one."""
        if self.services.transcriber is None:
            raise NotSupported("This server does not transcribe speech.")
        return await self.services.transcriber.transcribe(audio)

    async def start(self) -> None:  # noqa: B027 - most assistants begin nothing
        """Start background tasks; called once, when the server starts, in its event loop."""

    async def close(self) -> None:  # noqa: B027 - most assistants hold nothing
        """Release resources; called once, when the server shuts down."""
