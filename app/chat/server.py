"""What happens with a thread: the SDK's server, with every item saved before it is told."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from chatkit.errors import BaseStreamError, CustomStreamError, ErrorCode, StreamError
from chatkit.server import DEFAULT_PAGE_SIZE, ChatKitServer
from chatkit.types import (
    AudioInput,
    ChatKitReq,
    ClientToolCallItem,
    FeedbackKind,
    HiddenContextItem,
    InputTranscribeParams,
    InputTranscribeReq,
    ItemsListReq,
    NonStreamingReq,
    SDKHiddenContextItem,
    StreamingReq,
    StructuredInputItem,
    SyncCustomActionResponse,
    ThreadCustomActionParams,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdate,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadsAddClientToolOutputReq,
    ThreadsAddStructuredInputReq,
    ThreadsCustomActionReq,
    ThreadsRetryAfterItemReq,
    ThreadsSyncCustomActionReq,
    ThreadStreamEvent,
    TranscriptionResult,
    UserMessageItem,
    WidgetItem,
)

from app.assistant import Assistant
from app.chat.actions import CheckedAction, LiveContext, checked
from app.chat.answer_limit import limited
from app.chat.clean import clean_model
from app.chat.history import HistoryLimits, recent_items
from app.chat.own_ids import OwnIds
from app.chat.preflight import preflight
from app.chat.title import entitled
from app.chat.unfinished import followed
from app.context import RequestContext, Turn
from app.errors import AssistantRefused, ChatError, InternalError, NotFound, NothingPending, Unprocessable
from app.observability.logs import failure, get_logger
from app.store import DatabaseStore
from app.store.scope import check_active

LONGEST_ANSWER_CHARACTERS = 1_000_000

logger = get_logger(__name__)


class ChatServer(ChatKitServer[RequestContext]):
    store: DatabaseStore

    def __init__(
        self,
        store: DatabaseStore,
        assistant: Assistant,
        *,
        longest_answer: int = LONGEST_ANSWER_CHARACTERS,
        history: HistoryLimits | None = None,
    ) -> None:
        super().__init__(store)
        self.assistant = assistant
        self._longest_answer = longest_answer
        self._history = history or HistoryLimits()

    async def answer(self, request: NonStreamingReq, context: RequestContext) -> bytes:
        """The JSON answer of an operation that does not stream."""
        await self._preflight(request, context)
        match request:
            case ItemsListReq():
                return await self._list_items(request, context)
            case ThreadsSyncCustomActionReq():
                return await self._act_at_once(request, context)
            case InputTranscribeReq(params=params):
                return self._serialize(await self._transcribed(params, context))
            case _:
                return await self._process_non_streaming(request, context)

    async def stream(self, request: StreamingReq, context: RequestContext) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The events of a turn. What must be refused is refused before the first one, and before any write."""
        await self._preflight(request, context)
        async with aclosing(self._process_streaming_impl(request, context)) as events:
            async for event in events:
                # The SDK holds back hidden context that is done; it must not leave in any other way either.
                if not isinstance(getattr(event, "item", None), HiddenContextItem | SDKHiddenContextItem):
                    yield event

    async def _preflight(self, request: ChatKitReq, context: RequestContext) -> None:
        takes_attachments = self.attachment_store is not None
        await preflight(request, context, self.store, self.assistant, takes_attachments=takes_attachments)

    def encode(self, event: ThreadStreamEvent) -> bytes:
        """One server-sent event."""
        return b"data: " + self._serialize(event) + b"\n\n"

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        """The SDK's hook. What goes wrong in it is logged without its message, which may quote the user."""
        async with aclosing(self._noted(self._answer(thread, input_user_message, context), context)) as answer:
            async for event in answer:
                yield event

    async def _noted(
        self, events: AsyncGenerator[ThreadStreamEvent, None], context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The same events; why they ended early is noted for the ledger, and nothing of it for the log but its kind."""
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except BaseStreamError as error:
            own = InternalError.code if error.allow_retry else AssistantRefused.code
            _note(context, error.code if isinstance(error, ChatError) else own)
            raise
        except Exception as error:  # noqa: BLE001 - the SDK would log the message
            _note(context, "assistant_failed")
            logger.error("assistant_failed", **failure(error))  # noqa: TRY400 - a traceback would print the message
            raise StreamError(ErrorCode.STREAM_ERROR, allow_retry=True) from None

    async def _answer(
        self, thread: ThreadMetadata, message: UserMessageItem | None, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        # The SDK saves both items as well; the turn remembers what it committed, so together that is one
        # statement for each.
        if message is not None:
            await self.store.add_thread_item(thread.id, message, context)
        history = await recent_items(self.store, thread.id, context, self._history)
        live = LiveContext.of(thread, self.store, context)
        told = live.merged(self.assistant.respond(history, live))
        async with (
            entitled(thread, self.assistant, message, live) as look_for_title,
            aclosing(self._kept(told, thread, context)) as answer,
        ):
            async for event in answer:
                look_for_title()
                yield event

    async def _kept(
        self, events: AsyncGenerator[ThreadStreamEvent, None], thread: ThreadMetadata, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """What an assistant says, with ids of ours, within bounds, and saved before it is told."""
        async with aclosing(events):
            own = OwnIds(self.store, thread, context).rewritten(events)
            async for event in limited(own, self._longest_answer):
                await self._keep(event, thread, context)
                yield event

    async def _keep(self, event: ThreadStreamEvent, thread: ThreadMetadata, context: RequestContext) -> None:
        """Save what is done before it is told, and follow what is not done yet for checkpoints."""
        turn = context.turn
        if turn is None:
            return
        match event:
            case ThreadItemAddedEvent(item=item):
                turn.unfinished[item.id] = followed(item)
            case ThreadItemUpdatedEvent(item_id=item_id, update=update):
                if (unfinished := turn.unfinished.get(item_id)) is not None:
                    unfinished.apply(update)
                else:
                    await self._change(item_id, update, thread, context, turn)
            case ThreadItemDoneEvent(item=item):
                async with turn.writing:
                    await self.store.add_thread_item(thread.id, item, context)
                    turn.unfinished.pop(item.id, None)
                turn.changing.pop(item.id, None)
            case ThreadItemReplacedEvent(item=item):
                # The SDK saves it; what was followed before is another item.
                turn.changing.pop(item.id, None)
            case ThreadItemRemovedEvent(item_id=item_id):
                async with turn.writing:
                    turn.unfinished.pop(item_id, None)
                turn.changing.pop(item_id, None)
            case _:
                pass

    async def _change(
        self, item_id: str, update: ThreadItemUpdate, thread: ThreadMetadata, context: RequestContext, turn: Turn
    ) -> None:
        """An item that was finished before goes on: a workflow after a client tool call, a widget by an action."""
        if (changing := turn.changing.get(item_id)) is None:
            try:
                changing = followed(await self.store.load_item(thread.id, item_id, context))
            except NotFound:
                # Taken back, or never announced: there is nothing to keep it with.
                return
            turn.changing[item_id] = changing
        changing.apply(update)
        async with turn.writing:
            if (changed := changing.snapshot()) is not None:
                await self.store.save_item(thread.id, changed, context)

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        await self.store.save_feedback(thread_id, item_ids, feedback, context)

    async def _transcribed(self, params: InputTranscribeParams, context: RequestContext) -> TranscriptionResult:
        try:
            # Strictly, which the SDK is not; and beside the event loop, for it may be long.
            data = await asyncio.to_thread(base64.b64decode, params.audio_base64, validate=True)
        except ValueError:
            raise Unprocessable("params.audio_base64: this is not base64.") from None
        return await self.assistant.transcribe(AudioInput(data=data, mime_type=params.mime_type), context)

    async def _act_at_once(self, request: ThreadsSyncCustomActionReq, context: RequestContext) -> bytes:
        """The item that an action changed, saved before it is told."""
        thread, action = await self._checked_action(request.params, context)
        check_active(thread)
        try:
            changed = await action.outcome(LiveContext.of(thread, self.store, context))
        except CustomStreamError as error:
            raise error if isinstance(error, ChatError) else AssistantRefused(error.message) from None
        except Exception as error:  # noqa: BLE001 - whatever an assistant's code raises
            logger.error("action_failed", **failure(error))  # noqa: TRY400 - a traceback would print the message
            raise InternalError from None
        if changed is not None:
            changed = clean_model(changed.model_copy(update={"thread_id": thread.id}))
            await self.store.change_item(thread.id, changed, context)
        is_hidden = isinstance(changed, HiddenContextItem | SDKHiddenContextItem)
        return self._serialize(SyncCustomActionResponse(updated_item=None if is_hidden else changed))

    async def _checked_action(
        self, params: ThreadCustomActionParams, context: RequestContext
    ) -> tuple[ThreadMetadata, CheckedAction]:
        thread = await self.store.load_thread(params.thread_id, context)
        if params.item_id is None:
            return thread, checked(self.assistant, params.action, None)
        sender = await self.store.load_item(params.thread_id, params.item_id, context)
        if not isinstance(sender, WidgetItem):
            raise Unprocessable("params.item_id: this item is not a widget.")
        return thread, checked(self.assistant, params.action, sender)

    async def handle_stream_cancelled(
        self, thread: ThreadMetadata, pending_items: list[ThreadItem], context: RequestContext
    ) -> None:
        """Nothing: the turn's end keeps what is unfinished, in the statement that closes it.

        The SDK would add the item as if it were final, and a hidden "user cancelled" item, which after a client
        tool call blocks the tool's output.
        """

    async def _process_streaming_impl(
        self, request: StreamingReq, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        match request:
            case ThreadsRetryAfterItemReq(params=params):
                thread = await self.store.load_thread(params.thread_id, context)
                message = await self.store.open_retry(params.thread_id, params.item_id, context)
                async for event in self._process_events(
                    thread, context, lambda: self.respond(thread, message, context)
                ):
                    yield event
            case ThreadsAddClientToolOutputReq(params=params):
                thread = await self.store.load_thread(params.thread_id, context)
                call = await self._pending_call(params.thread_id, context)
                answered = call.model_copy(update={"output": params.result, "status": "completed"})
                await self.store.settle_item(thread.id, answered, context)
                async for event in self._process_events(thread, context, lambda: self.respond(thread, None, context)):
                    yield event
            case ThreadsAddStructuredInputReq(params=params):
                thread = await self.store.load_thread(params.thread_id, context)
                questions = await self._questions(params.thread_id, params.item_id, context)
                answers = await self._apply_structured_input_submission(questions, params.input)
                await self.store.settle_item(thread.id, answers, context)
                async for event in self._process_events(
                    thread, context, lambda: self._replaced_and_answered(thread, answers, context)
                ):
                    yield event
            case ThreadsCustomActionReq(params=params):
                thread, action = await self._checked_action(params, context)
                await self.store.open_turn(thread.id, context)
                live = LiveContext.of(thread, self.store, context)
                told = self._noted(self._kept(action.events(live), thread, context), context)
                async for event in self._process_events(thread, context, lambda: told):
                    yield event
            case _:
                async for event in super()._process_streaming_impl(request, context):
                    yield event

    async def _list_items(self, request: ItemsListReq, context: RequestContext) -> bytes:
        params = request.params
        page = await self.store.load_thread_items(
            params.thread_id, params.after, params.limit or DEFAULT_PAGE_SIZE, params.order, context
        )
        if not page.data:
            # The store answers for an absent thread, or somebody else's, with an empty page.
            await self.store.load_thread(params.thread_id, context)
        page.data = [item for item in page.data if not isinstance(item, HiddenContextItem | SDKHiddenContextItem)]
        return self._serialize(page)

    async def _pending_call(self, thread_id: str, context: RequestContext) -> ClientToolCallItem:
        """The call that waits for its output, whatever a failed turn has left behind it.

        Also one that has its output already: whether that output may be given again, the store decides.
        """
        call = await self.store.last_call(thread_id, context)
        if call is None:
            raise NothingPending
        return call

    async def _questions(self, thread_id: str, item_id: str, context: RequestContext) -> StructuredInputItem:
        item = await self.store.load_item(thread_id, item_id, context)
        if not isinstance(item, StructuredInputItem):
            raise Unprocessable("params.item_id: this item asks no questions.")
        # The SDK refuses to answer twice; here the store does, which also knows of a turn that came to nothing.
        return item.model_copy(update={"status": "pending"})

    async def _replaced_and_answered(
        self, thread: ThreadMetadata, answers: StructuredInputItem, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        yield ThreadItemReplacedEvent(item=answers)
        async for event in self.respond(thread, None, context):
            yield event


def _note(context: RequestContext, code: str) -> None:
    if context.turn is not None:
        context.turn.error_code = code
