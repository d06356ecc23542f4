"""ChatServer: the SDK's ChatKitServer, one arm for each operation, with every item saved before it is sent."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import assert_never
from uuid import UUID

from chatkit.server import ChatKitServer, NonStreamingResult, StreamingResult
from chatkit.types import (
    AttachmentsCreateReq,
    AttachmentsDeleteReq,
    ChatKitReq,
    ErrorEvent,
    FeedbackKind,
    InputTranscribeReq,
    ItemsFeedbackReq,
    ItemsListReq,
    NonStreamingReq,
    StreamingReq,
    StreamOptions,
    ThreadItem,
    ThreadMetadata,
    ThreadsAddClientToolOutputReq,
    ThreadsAddStructuredInputReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsCustomActionReq,
    ThreadsDeleteReq,
    ThreadsGetByIdReq,
    ThreadsListReq,
    ThreadsRetryAfterItemReq,
    ThreadsSyncCustomActionReq,
    ThreadStreamEvent,
    ThreadsUpdateReq,
    UserMessageItem,
    is_streaming_req,
)
from pydantic import BaseModel, TypeAdapter

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.approvals import APPROVAL_ACTION
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.references import with_links
from chatkit_postgres.chat.history import recent_items
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.chat.operations.action_at_once import act_at_once
from chatkit_postgres.chat.operations.speech import transcribe
from chatkit_postgres.chat.operations.threads import get_thread, list_items, list_threads, update_thread
from chatkit_postgres.chat.operations.turns import MAX_ANSWER_CHARACTERS, OpenedTurn, Opening, TurnOperations
from chatkit_postgres.chat.preflight import preflight
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.wire import to_json
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AttachmentUnavailable, ChatError, KeyTaken, NotFound, Superseded
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.session import CREATE, WriteSession

HEARTBEAT_SECONDS = 5
"""Seconds between heartbeats of a turn that ``process`` runs."""

logger = get_logger(__name__)

_requests: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)


class ChatServer(ChatKitServer[RequestContext]):
    store: DatabaseStore

    def __init__(
        self,
        store: DatabaseStore,
        assistant: Assistant,
        attachments: Attachments,
        *,
        max_answer_characters: int = MAX_ANSWER_CHARACTERS,
        history: HistoryLimits | None = None,
        max_audio_bytes: int = 10 * 1024 * 1024,
    ) -> None:
        super().__init__(store, attachments)
        self.assistant = assistant
        self.attachments = attachments
        self._turns = TurnOperations(
            store,
            assistant,
            attachments,
            respond=self._respond,
            stream_options=self.get_stream_options,
            max_answer_characters=max_answer_characters,
        )
        self._max_audio_bytes = max_audio_bytes
        self._history_limits = history or HistoryLimits()

    async def process(
        self, request: str | bytes | bytearray, context: RequestContext
    ) -> StreamingResult | NonStreamingResult:
        """Handle one request as the SDK's server does: the reader of the stream drives the turn, without
        checkpoints. The HTTP API hands ``stream`` to a TurnRunner instead, so that a turn survives its reader."""
        operation = _requests.validate_json(request)
        if not is_streaming_req(operation):
            return NonStreamingResult(await self.answer(operation, context))
        return StreamingResult(self._frames(operation, context.with_session(WriteSession(operation.type))))

    async def answer(self, request: NonStreamingReq, context: RequestContext) -> bytes:  # noqa: C901 - one arm each
        """The JSON response of an operation that does not stream."""
        await preflight(request, context, self.store, self.assistant)
        response: BaseModel | None = None
        match request:
            case ThreadsGetByIdReq(params=params):
                response = await get_thread(self.store, params.thread_id, context)
            case ThreadsListReq(params=params):
                response = await list_threads(self.store, params, context)
            case ThreadsUpdateReq(params=params):
                response = await update_thread(self.store, params, context)
            case ThreadsDeleteReq(params=params):
                await self.store.delete_thread(params.thread_id, context)
            case ItemsListReq(params=params):
                response = await list_items(self.store, params, context)
            case ItemsFeedbackReq(params=params):
                await self.add_feedback(params.thread_id, params.item_ids, params.kind, context)
            case ThreadsSyncCustomActionReq(params=params):
                response = await act_at_once(self.store, self.assistant, self.attachments, params, context)
            case InputTranscribeReq(params=params):
                response = await transcribe(self.assistant, params, context, max_bytes=self._max_audio_bytes)
            case AttachmentsCreateReq(params=params):
                response = await self.attachments.create_attachment(params, context)
            case AttachmentsDeleteReq(params=params):
                await self.attachments.delete_attachment(params.attachment_id, context)
            case _:
                assert_never(request)
        return self._to_json(response, context) if response is not None else b"{}"

    def stream(self, request: StreamingReq, context: RequestContext, draft: Draft) -> Events:
        """The events of a turn. A request that must be refused is refused before the first event and before any
        write."""
        context = replace(context, files=self.attachments.of(context))
        return self._turn(self._checked(request, context), context, draft)

    def resume(self, thread_id: str, asked_by: UUID, context: RequestContext, draft: Draft) -> Events:
        """The events of a turn that goes on with an answered run whose turn was interrupted. Raises NothingPending."""
        context = replace(context, files=self.attachments.of(context))
        return self._turn(self._turns.resume(thread_id, asked_by, context), context, draft)

    async def give_up(self, thread_id: str, asked_by: UUID, context: RequestContext) -> bool:
        """End an answered run whose turn was interrupted, and show on its cards what is known of its calls. False if
        another process was faster."""
        return await self._turns.give_up(thread_id, asked_by, context)

    async def _turn(self, opening: Opening, context: RequestContext, draft: Draft) -> Events:
        # Runs are followed in the whole task, which is the turn's own.
        runs = self.assistant.runs_of(context)
        if runs is not None:
            runs.follow()
        try:
            async with aclosing(opening):
                while not isinstance(opened := await anext(opening), OpenedTurn):
                    yield opened
            # Not kept in memory while the answer streams.
            del opening
            async with aclosing(self._turns.send(opened, context, draft)) as events:
                async for event in events:
                    yield event
        except (AttachmentUnavailable, NotFound):
            await self._raise_if_repeated(context)
            raise
        finally:
            if runs is not None:
                runs.end()

    async def _checked(self, request: StreamingReq, context: RequestContext) -> Opening:
        await preflight(request, context, self.store, self.assistant)
        async with aclosing(self._opening(request, context)) as opening:
            async for opened in opening:
                yield opened

    def encode(self, event: ThreadStreamEvent, context: RequestContext) -> bytes:
        """One server-sent event."""
        return b"data: " + self._to_json(event, context) + b"\n\n"

    def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> Events:
        """The SDK's hook: the assistant's events, in one order with those it streams through its context."""
        return self._respond(LiveContext.of(thread, self.store, context), input_user_message)

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        await self.store.items.save_feedback(thread_id, item_ids, feedback, context)
        await self.assistant.add_feedback(thread_id, item_ids, feedback, context)

    def get_stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        return self.assistant.stream_options(thread, context)

    def _respond(self, live: LiveContext, message: UserMessageItem | None) -> Events:
        load_history = partial(self._load_history, live.thread, message, live.request_context)
        return live.queue.merge(self.assistant.answer(message, live, load_history, live.queue.offer))

    def _opening(self, request: StreamingReq, context: RequestContext) -> Opening:  # noqa: PLR0911 - one arm each
        match request:
            case ThreadsCreateReq(params=params):
                return self._turns.create_thread(params, context)
            case ThreadsAddUserMessageReq(params=params):
                return self._turns.add_message(params, context)
            case ThreadsRetryAfterItemReq(params=params):
                return self._turns.retry(params, context)
            case ThreadsAddClientToolOutputReq(params=params):
                return self._turns.add_tool_output(params, context)
            case ThreadsAddStructuredInputReq(params=params):
                return self._turns.add_structured_input(params, context)
            case ThreadsCustomActionReq(params=params) if params.action.type == APPROVAL_ACTION:
                return self._turns.approve(params, context)
            case ThreadsCustomActionReq(params=params):
                return self._turns.act(params, context)
            case _:
                assert_never(request)

    async def _load_history(
        self, thread: ThreadMetadata, message: UserMessageItem | None, context: RequestContext
    ) -> Sequence[ThreadItem]:
        session = context.session
        if message is not None and session is not None and session.operation == CREATE:
            # A thread that this turn has created holds nothing else.
            return [message]
        return await recent_items(self.store, thread.id, context, self._history_limits)

    async def _raise_if_repeated(self, context: RequestContext) -> None:
        """Raises KeyTaken for a repeated request: its attachments were sent with the first one."""
        session = context.session
        if session is None or session.is_open or session.idempotency_key is None:
            return
        if await self.store.turns.find(session.idempotency_key, context) is not None:
            raise KeyTaken

    async def _frames(self, request: StreamingReq, context: RequestContext) -> AsyncGenerator[bytes, None]:
        draft = Draft()
        outcome = context.outcome
        heartbeats = asyncio.create_task(self._send_heartbeats(context))
        try:
            async with aclosing(self.stream(request, context, draft)) as events:
                async for event in events:
                    if isinstance(event, ErrorEvent):
                        outcome.state = "failed"
                    yield self.encode(event, context)
        except Exception:
            outcome.state = "failed"
            raise
        except BaseException:
            outcome.state = "stopped"
            raise
        finally:
            heartbeats.cancel()
            # Shielded: a server that notices a disconnect cancels at every await.
            await asyncio.shield(self._finish(context, draft))

    async def _finish(self, context: RequestContext, draft: Draft) -> None:
        outcome = context.outcome
        if context.session is not None and context.session.is_superseded:
            outcome.state, outcome.error_code = "superseded", Superseded.code
        try:
            await self.store.turns.finish(context, outcome, unfinished=draft.snapshots())
        except Exception as error:  # noqa: BLE001 - maintenance closes the turn
            log_failure(logger, "turn_not_closed", error)

    async def _send_heartbeats(self, context: RequestContext) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            # A lost fence is noticed by the next write.
            with suppress(ChatError):
                await self.store.turns.heartbeat(context)

    def _to_json(self, model: BaseModel, context: RequestContext) -> bytes:
        return to_json(with_links(model, self.attachments.link(context)))
