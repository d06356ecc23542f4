"""A team's own ``ChatKitServer`` as an assistant.

Its hooks are called where they are overridden; requests, storage, ids, turns and files are ours. Its ``store`` is the
server's DatabaseStore, and the context of its hooks is the RequestContext.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

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
from pydantic import TypeAdapter

from chatkit_postgres.assistant.actions import ActionRules, RegisteredAction
from chatkit_postgres.assistant.base import Assistant, Choices, LoadHistory, OpenChoices, Say
from chatkit_postgres.assistant.runs import FollowedRuns, follow_runs
from chatkit_postgres.assistant.user_errors import user_facing_errors
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import DatabaseStore

OURS = ("process", "handle_stream_cancelled")
"""Methods of a ChatKitServer that are not called here, also where they are overridden."""

_any_payload: TypeAdapter[Any] = TypeAdapter(Any)

logger = get_logger(__name__)


class OwnAttachmentStoreError(Exception):
    """Two places for files: ours has the limits, the owners and the links."""


class ServerAssistant(Assistant):
    def __init__(self, server: ChatKitServer[Any], store: DatabaseStore, *, is_traced: bool = False) -> None:
        """Raises OwnAttachmentStoreError."""
        self.server = server
        self._models: ModelProvider | None = None
        self._is_traced = is_traced
        _adopt(server, store)
        follow_runs()
        if uncalled := [name for name in OURS if self._overrides(name)]:
            logger.warning("server_methods_are_not_called", server=type(server).__qualname__, methods=uncalled)

    def prepare(self, models: ModelProvider, choices: Choices) -> None:
        self._models = models
        self.choices = OpenChoices(choices.models, choices.tools)

    async def answer(
        self,
        message: UserMessageItem | None,
        context: AgentContext[RequestContext],
        load_history: LoadHistory,  # noqa: ARG002 - it loads what it wants from its store
        say: Say,  # noqa: ARG002
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        request = context.request_context
        async for event in self._followed(lambda: self.server.respond(context.thread, message, request), request):
            yield event

    def respond(self, history: Any, context: AgentContext[RequestContext]) -> AsyncGenerator[ThreadStreamEvent, None]:
        """For who calls an assistant by hand: the newest item is the message, if it is one."""
        newest = history[-1] if history else None
        message = newest if isinstance(newest, UserMessageItem) else None
        request = context.request_context
        return self._followed(lambda: self.server.respond(context.thread, message, request), request)

    async def title(self, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:  # noqa: ARG002
        """None: the server sets ``thread.title``, or leaves it."""
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
        """Any type that the widget declares: the server itself knows which it handles."""
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
            return self._followed(lambda: self.server.action(context.thread, action, sender, request), request)

        async def handle_at_once(
            payload: Any, sender: WidgetItem | None, context: AgentContext[RequestContext]
        ) -> ThreadItem | None:
            request, action = context.request_context, Action[str, Any](type=action_type, payload=payload)
            runs = self._runs(request)
            runs.follow()
            try:
                with user_facing_errors():
                    answered = await self.server.sync_action(context.thread, action, sender, request)
            finally:
                runs.end()
            return answered.updated_item

        return RegisteredAction(rules, handle, handle_at_once if self._overrides("sync_action") else None)

    def _overrides(self, name: str) -> bool:
        return getattr(type(self.server), name) is not getattr(ChatKitServer, name)

    def _runs(self, request: RequestContext) -> FollowedRuns:
        return FollowedRuns(self._models, request.turn, is_traced=self._is_traced)

    async def _followed(
        self, start: Callable[[], AsyncIterator[ThreadStreamEvent]], request: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        runs = self._runs(request)
        runs.follow()
        try:
            with user_facing_errors():
                async with aclosing(_closable(start())) as events:
                    async for event in events:
                        yield event
        finally:
            runs.end()


async def _closable(events: AsyncIterator[ThreadStreamEvent]) -> AsyncGenerator[ThreadStreamEvent, None]:
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _adopt(server: ChatKitServer[Any], store: DatabaseStore) -> None:
    """Give the server our store, wherever it has its own one; subclasses like to keep it under a second name."""
    own = getattr(server, "attachment_store", None)
    if own is not None:
        raise OwnAttachmentStoreError(
            f"it brings an attachment store of its own, {type(own).__name__}. Files are stored here, in CHAT_DATA_DIR "
            "or in the bucket of CHAT_STORAGE_URL: call super().__init__(store) without attachment_store, and read "
            "files through context.files in the hooks"
        )
    before = getattr(server, "store", None)
    for name, value in list(vars(server).items()):
        if value is before and before is not None:
            setattr(server, name, store)
    server.store = store
    server.attachment_store = None
