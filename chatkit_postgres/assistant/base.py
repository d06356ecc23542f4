"""The interface of the model side. It knows nothing of HTTP or SQL."""

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

from chatkit_postgres.assistant.actions import RegisteredAction, rules_of
from chatkit_postgres.assistant.runs import FollowedRuns
from chatkit_postgres.assistant.speech import Transcriber
from chatkit_postgres.assistant.titles import title_of
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotSupported

if TYPE_CHECKING:
    from chatkit_postgres.assistant.mcp_servers import McpServers

SendDelta = Callable[[ThreadStreamEvent], Awaitable[None]]
LoadHistory = Callable[[], Awaitable[Sequence[ThreadItem]]]


@dataclass(frozen=True)
class Choices:
    """What a message may ask for in its ``inference_options``; anything else is refused."""

    models: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()

    def allows_model(self, name: str) -> bool:
        return name in self.models

    def allows_tool(self, tool_id: str) -> bool:
        return tool_id in self.tools


class OpenChoices(Choices):
    """For an assistant that judges them itself: what the settings do not limit is passed on."""

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


NO_SERVICES = Services()


class Assistant(ABC):
    """Subclass this, or hand over an ``agents.Agent``, to decide what is answered.

    Only ``respond`` has to be written. Methods marked with ``@action`` handle what widgets send.
    """

    choices = Choices()
    own_tool_choices: frozenset[str] = frozenset()
    """Ids of tool choices that the assistant itself acts on, by choosing an agent or another way to answer. They are
    accepted like those of ``CHAT_ALLOWED_TOOLS``, and no model is told to call them."""
    start_prompts: Mapping[str, str] = MappingProxyType({})
    """What an empty conversation of the playground proposes to say: the words, and what they lead to."""
    services = Services()
    """The server's, set by ``prepare``."""

    @property
    def database(self) -> Database | None:
        """The server's, for tables of your own. Hold no connection while a model talks."""
        return self.services.database

    def stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        """What a client may do with the stream of an answer."""
        return StreamOptions(allow_cancel=True)

    async def add_feedback(  # noqa: B027 - most assistants leave it at that
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        """Called with each feedback after it was saved."""

    @abstractmethod
    def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Stream the events of one answer.

        ``history`` is the thread, oldest first; its last item is what there is to answer. Whatever is yielded
        as done is saved before the client sees it. When the turn is stopped, CancelledError arrives at the
        ``await`` the assistant is in: end the model's stream in a ``finally``.
        """
        ...

    def stream(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], send_delta: SendDelta
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Called by ``answer``: ``respond``, unless text deltas have a faster way than to be yielded.

        ``send_delta`` sends one after all events that were yielded or sent before it.
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
        """What follows the runs of the Agents SDK that begin while the request is handled; None where none do."""
        return None

    def prepare(self, models: ModelProvider, choices: Choices, services: Services = NO_SERVICES) -> None:
        """Called once after loading, before the first request: with the configured models, the choices that the
        settings allow, and the services of the server."""
        self.services = services
        self.choices = replace(choices, tools=choices.tools | self.own_tool_choices)

    def find_action(self, action_type: str) -> RegisteredAction | None:
        """The handler of an action: the method of this object that is marked for it."""
        for kind in type(self).__mro__:
            for name, attribute in vars(kind).items():
                rules = rules_of(attribute)
                if rules is not None and rules.type == action_type:
                    # By its name: a subclass may have its own way of doing it.
                    return RegisteredAction(rules, getattr(self, name))
        return None

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
        """A title for a new thread, while its first answer is written; a user's own is never overwritten."""
        return title_of(message)

    async def resolve_tag(self, tag: UserMessageTagContent, context: AgentContext[RequestContext]) -> str:
        """What the model should know of an entity that a user mentioned. ``tag.data`` is the client's word: look the
        entity up by ``tag.id``, with the rights of ``context.request_context.user_id``."""
        return f"@{tag.text}: {json.dumps(tag.data, ensure_ascii=False)}"

    async def transcribe(self, audio: AudioInput, context: RequestContext) -> TranscriptionResult:
        """Speech to text: by the configured model, if there is one."""
        if self.services.transcriber is None:
            raise NotSupported("This server does not transcribe speech.")
        return await self.services.transcriber.transcribe(audio)

    async def start(self) -> None:  # noqa: B027 - most assistants begin nothing
        """Begin what runs beside the answers; called once, when the server starts, in its event loop."""

    async def close(self) -> None:  # noqa: B027 - most assistants hold nothing
        """Give back what the assistant holds; called once, when the server shuts down."""
