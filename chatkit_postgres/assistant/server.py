"""Runs a team's own ``ChatKitServer`` as an assistant.

Its overridden hooks are called; requests, storage, ids, turns and files are ours. Its ``store`` is replaced with our
DatabaseStore, and its hooks receive the RequestContext.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any
from weakref import WeakKeyDictionary

from agents import ModelProvider
from chatkit.actions import Action
from chatkit.agents import AgentContext
from chatkit.server import ChatKitServer
from chatkit.types import (
    AudioInput,
    FeedbackKind,
    StreamOptions,
    ThreadItem,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    UserMessageItem,
    WidgetItem,
)
from chatkit.widgets import WidgetRoot
from pydantic import TypeAdapter

from chatkit_postgres.assistant.actions import ActionRules, RegisteredAction
from chatkit_postgres.assistant.approvals.asking import MakeCard
from chatkit_postgres.assistant.approvals.requests import ApprovalRequest
from chatkit_postgres.assistant.base import (
    NO_SERVICES,
    Assistant,
    Choices,
    LoadHistory,
    OpenChoices,
    SendDelta,
    Services,
)
from chatkit_postgres.assistant.runs import FollowedRuns, followed_runs
from chatkit_postgres.assistant.silence import reason_of, shows
from chatkit_postgres.assistant.user_errors import user_facing_errors
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import InternalError, Unprocessable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import DatabaseStore

UNCALLED = ("process", "handle_stream_cancelled")
"""Methods of a ChatKitServer that are never called here, even if overridden."""

_any_payload: TypeAdapter[Any] = TypeAdapter(Any)

_adopted: WeakKeyDictionary[ChatKitServer[Any], DatabaseStore] = WeakKeyDictionary()
"""The store that each server was given."""

logger = get_logger(__name__)


class OwnAttachmentStoreError(Exception):
    """A ChatKitServer has an attachment store. Only ours enforces limits and owners, and signs URLs."""


class AlreadyServingError(Exception):
    """A ChatKitServer is used in two applications, which may have two databases; a server has one store."""


class ServerAssistant(Assistant):
    def __init__(self, server: ChatKitServer[Any], store: DatabaseStore) -> None:
        """Raises OwnAttachmentStoreError or AlreadyServingError."""
        self.server = server
        self._models: ModelProvider | None = None
        _adopt(server, store)
        if uncalled := [name for name in UNCALLED if self._overrides(name)]:
            logger.warning("server_methods_are_not_called", server=type(server).__qualname__, methods=uncalled)

    def prepare(self, models: ModelProvider, choices: Choices, services: Services = NO_SERVICES) -> None:
        super().prepare(models, choices, services)
        self._models = models
        self.choices = OpenChoices(choices.models, choices.tools)

    # Not an async generator itself, so that closing the returned one closes the team's generator as well.
    def answer(
        self,
        message: UserMessageItem | None,
        context: AgentContext[RequestContext],
        load_history: LoadHistory,  # noqa: ARG002 - the server loads items from its store
        send_delta: SendDelta,  # noqa: ARG002
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        def start() -> AsyncIterator[ThreadStreamEvent]:
            if (runs := followed_runs()) is not None:
                runs.context, runs.make_card = context, self.approval_card
            return self.server.respond(context.thread, message, context.request_context)

        return _with_words(_events(start), context.request_context)

    def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        newest = history[-1] if history else None
        message = newest if isinstance(newest, UserMessageItem) else None
        return _events(lambda: self.server.respond(context.thread, message, context.request_context))

    def approval_card(self, request: ApprovalRequest, context: AgentContext[RequestContext]) -> WidgetRoot:
        """That of the server's own method ``approval_card``, if it has one."""
        make: MakeCard | None = getattr(self.server, "approval_card", None)
        return make(request, context) if make is not None else super().approval_card(request, context)

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:  # noqa: ARG002
        """None, because the server sets ``thread.title`` itself, or does not."""
        return None

    def stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        return self.server.get_stream_options(thread, context)

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        await self.server.add_feedback(thread_id, item_ids, feedback, context)

    async def transcribe(self, audio: AudioInput, context: RequestContext) -> TranscriptionResult:
        if self._overrides("transcribe"):
            return await self.server.transcribe(audio, context)
        return await super().transcribe(audio, context)

    def find_action(self, action_type: str) -> RegisteredAction | None:
        """Accepts every type: the widget must declare it, and the server decides which it handles."""
        if not self._overrides("action") and not self._overrides("sync_action"):
            return None
        rules = ActionRules(action_type, _any_payload, may_lack_sender=True)

        def handle(
            payload: Any, sender: WidgetItem | None, context: AgentContext[RequestContext]
        ) -> AsyncGenerator[ThreadStreamEvent, None]:
            if not self._overrides("action"):
                raise Unprocessable(
                    "params.action.type: this action is answered at once; send threads.sync_custom_action."
                )
            request, action = context.request_context, Action[str, Any](type=action_type, payload=payload)
            return _events(lambda: self.server.action(context.thread, action, sender, request))

        async def handle_at_once(
            payload: Any, sender: WidgetItem | None, context: AgentContext[RequestContext]
        ) -> ThreadItem | None:
            request, action = context.request_context, Action[str, Any](type=action_type, payload=payload)
            with user_facing_errors():
                answered = await self.server.sync_action(context.thread, action, sender, request)
            return answered.updated_item

        return RegisteredAction(rules, handle, handle_at_once if self._overrides("sync_action") else None)

    def _overrides(self, name: str) -> bool:
        return getattr(type(self.server), name) is not getattr(ChatKitServer, name)

    def runs_of(self, request: RequestContext) -> FollowedRuns:
        return FollowedRuns(
            self._models, request, counted=request.session is not None, is_traced=self.services.is_traced
        )


async def _with_words(
    events: AsyncGenerator[ThreadStreamEvent, None], request: RequestContext
) -> AsyncGenerator[ThreadStreamEvent, None]:
    """Raises ModelSilent after an answer whose agent ran and said nothing, if the server shows nothing either."""
    is_silent, session = True, request.session
    saved = len(session.committed) if session is not None else 0
    async with aclosing(events):
        async for event in events:
            is_silent = is_silent and not shows(event)
            yield event
    runs = followed_runs()
    # A server may have saved its items itself.
    is_silent = is_silent and session is not None and len(session.committed) == saved
    if is_silent and runs is not None and runs.hooks and request.outcome.state != "waiting":
        raise reason_of(*runs.hooks)


async def _events(start: Callable[[], AsyncIterator[ThreadStreamEvent]]) -> AsyncGenerator[ThreadStreamEvent, None]:
    with user_facing_errors():
        async with aclosing(_closable(start())) as events:
            async for event in events:
                yield event


async def _closable(events: AsyncIterator[ThreadStreamEvent]) -> AsyncGenerator[ThreadStreamEvent, None]:
    if not isinstance(events, AsyncIterable):
        if inspect.iscoroutine(events):
            events.close()
        cure = "write it as an async generator, or return an async iterator of events"
        logger.error("hook_returns_no_events", returned=type(events).__name__, cure=cure)
        raise InternalError
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _adopt(server: ChatKitServer[Any], store: DatabaseStore) -> None:
    """Replace the server's store with ours, in every attribute that holds the same object."""
    own = getattr(server, "attachment_store", None)
    if own is not None:
        raise OwnAttachmentStoreError(
            f"it brings an attachment store of its own, {type(own).__name__}. Files are stored here, in CHAT_DATA_DIR "
            "or in the bucket of CHAT_STORAGE_URL: call super().__init__(store) without attachment_store, and read "
            "files through context.files in the hooks"
        )
    if _adopted.setdefault(server, store) is not store:
        raise AlreadyServingError("it serves another application already; name a class, or a function that makes one")
    before = getattr(server, "store", None)
    for name, value in list(vars(server).items()):
        if value is before and before is not None:
            setattr(server, name, store)
    server.store = store
    server.attachment_store = None
