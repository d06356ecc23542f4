"""The SDK's ChatKitServer, with every item saved before it is sent."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, nullcontext
from functools import partial

from chatkit.errors import CustomStreamError
from chatkit.server import DEFAULT_PAGE_SIZE, ChatKitServer
from chatkit.types import (
    AttachmentsCreateReq,
    AttachmentsDeleteReq,
    ClientToolCallItem,
    FeedbackKind,
    HiddenContextItem,
    InputTranscribeReq,
    ItemsListParams,
    ItemsListReq,
    NonStreamingReq,
    Page,
    SDKHiddenContextItem,
    StreamingReq,
    StreamOptions,
    StructuredInputItem,
    SyncCustomActionResponse,
    Thread,
    ThreadCustomActionParams,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadsAddClientToolOutputReq,
    ThreadsAddStructuredInputReq,
    ThreadsCustomActionReq,
    ThreadsGetByIdReq,
    ThreadsRetryAfterItemReq,
    ThreadsSyncCustomActionReq,
    ThreadStreamEvent,
    UserMessageItem,
    WidgetItem,
)
from pydantic import BaseModel

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.client_tools import drop_calls, next_call
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.references import with_links
from chatkit_postgres.chat.actions import CheckedAction, checked
from chatkit_postgres.chat.failures import recording_failure
from chatkit_postgres.chat.generated_images import holds_image
from chatkit_postgres.chat.history import recent_items
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.chat.persistence import EventPersister
from chatkit_postgres.chat.preflight import preflight
from chatkit_postgres.chat.sanitize import clean_model
from chatkit_postgres.chat.speech import transcribed
from chatkit_postgres.chat.titles import generate_title_while_streaming
from chatkit_postgres.context import CREATE, RequestContext
from chatkit_postgres.errors import (
    AssistantRefused,
    AttachmentUnavailable,
    ChatError,
    InternalError,
    KeyTaken,
    NotFound,
    NothingPending,
    Unprocessable,
)
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.scope import check_active

MAX_ANSWER_CHARACTERS = 1_000_000

logger = get_logger(__name__)


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
        self._persister = EventPersister(store, attachments, max_characters=max_answer_characters)
        self._max_audio_bytes = max_audio_bytes
        self._history = history or HistoryLimits()

    async def answer(self, request: NonStreamingReq, context: RequestContext) -> bytes:
        """The JSON answer of an operation that does not stream."""
        await preflight(request, context, self.store, self.assistant)
        told: BaseModel
        match request:
            case ItemsListReq(params=params):
                told = await self._list_items(params, context)
            case ThreadsGetByIdReq(params=params):
                told = await self._whole_thread(params.thread_id, context)
            case ThreadsSyncCustomActionReq(params=params):
                told = await self._act_at_once(params, context)
            case InputTranscribeReq(params=params):
                told = await transcribed(self.assistant, params, context, max_bytes=self._max_audio_bytes)
            case AttachmentsCreateReq(params=params):
                told = await self.attachments.create_attachment(params, context)
            case AttachmentsDeleteReq(params=params):
                await self.attachments.delete_attachment(params.attachment_id, context)
                return b"{}"
            case _:
                return await self._process_non_streaming(request, context)
        return self._told(told, context)

    async def stream(self, request: StreamingReq, context: RequestContext) -> AsyncGenerator[ThreadStreamEvent, None]:
        """The events of a turn. What must be refused is refused before the first one, and before any write."""
        context.files = self.attachments.of(context)
        # For the whole task, which is the turn's own.
        runs = self.assistant.runs_of(context)
        if runs is not None:
            runs.follow()
        try:
            await preflight(request, context, self.store, self.assistant)
            async with aclosing(self._process_streaming_impl(request, context)) as events:
                async for event in events:
                    # The SDK holds back hidden context that is done; it must not leave in any other way either.
                    if not isinstance(getattr(event, "item", None), HiddenContextItem | SDKHiddenContextItem):
                        yield event
        except (AttachmentUnavailable, NotFound):
            await self._raise_if_repeated(context)
            raise
        finally:
            if runs is not None:
                runs.end()

    async def _raise_if_repeated(self, context: RequestContext) -> None:
        """The attachments of a request that is made again were sent the first time. Raises KeyTaken."""
        turn = context.turn
        if turn is None or turn.is_open or turn.idempotency_key is None:
            return
        if await self.store.find_turn(turn.idempotency_key, context) is not None:
            raise KeyTaken

    def encode(self, event: ThreadStreamEvent, context: RequestContext) -> bytes:
        """One server-sent event."""
        return b"data: " + self._told(event, context) + b"\n\n"

    def _told(self, model: BaseModel, context: RequestContext) -> bytes:
        return self._serialize(with_links(model, self.attachments.link(context)))

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        """The SDK's hook. What goes wrong in it is logged without its message, which may quote the user."""
        async with aclosing(recording_failure(self._answer(thread, input_user_message, context), context)) as answer:
            async for event in answer:
                yield event

    async def _answer(
        self, thread: ThreadMetadata, message: UserMessageItem | None, context: RequestContext
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        # The SDK saves both items as well; the turn remembers what it committed, so together that is one
        # statement for each.
        if message is not None:
            await self.store.add_thread_item(thread.id, message, context)
            if drop_calls(thread):
                await self.store.save_thread(thread, context)
        live = LiveContext.of(thread, self.store, context)
        load_history = partial(self._history_of, thread, message, context)
        told = live.queue.merge(self.assistant.answer(message, live, load_history, live.queue.offer))
        async with (
            generate_title_while_streaming(thread, self.assistant, message, live) as look_for_title,
            aclosing(self._persister.persist(told, thread, context)) as answer,
        ):
            async for event in answer:
                look_for_title()
                yield event

    async def _history_of(
        self, thread: ThreadMetadata, message: UserMessageItem | None, context: RequestContext
    ) -> Sequence[ThreadItem]:
        turn = context.turn
        if message is not None and turn is not None and turn.operation == CREATE:
            # There is nothing else in a thread that this turn has made.
            return [message]
        return await recent_items(self.store, thread.id, context, self._history)

    async def add_feedback(
        self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: RequestContext
    ) -> None:
        await self.store.save_feedback(thread_id, item_ids, feedback, context)
        await self.assistant.add_feedback(thread_id, item_ids, feedback, context)

    def get_stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        return self.assistant.stream_options(thread, context)

    async def _act_at_once(self, params: ThreadCustomActionParams, context: RequestContext) -> SyncCustomActionResponse:
        """The item that an action changed, saved before it is told."""
        thread, action = await self._checked_action(params, context)
        check_active(thread)
        context.files = self.attachments.of(context)
        try:
            runs = self.assistant.runs_of(context)
            with runs.following() if runs is not None else nullcontext():
                changed = await action.outcome(LiveContext.of(thread, self.store, context))
        except CustomStreamError as error:
            raise error if isinstance(error, ChatError) else AssistantRefused(error.message) from None
        except Exception as error:  # noqa: BLE001 - whatever an assistant's code raises
            log_failure(logger, "action_failed", error)
            raise InternalError from None
        if changed is not None:
            if holds_image(changed):
                logger.error("action_failed", cure="an image is made by an action that streams")
                raise InternalError
            changed = clean_model(changed.model_copy(update={"thread_id": thread.id}))
            await self.store.change_item(thread.id, changed, context)
        is_hidden = isinstance(changed, HiddenContextItem | SDKHiddenContextItem)
        return SyncCustomActionResponse(updated_item=None if is_hidden else changed)

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
                async for event in self._process_events(
                    thread, context, lambda: self._asked_or_answered(thread, context)
                ):
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
                told = recording_failure(self._persister.persist(action.events(live), thread, context), context)
                async for event in self._process_events(thread, context, lambda: told):
                    yield event
            case _:
                async for event in super()._process_streaming_impl(request, context):
                    yield event

    async def _whole_thread(self, thread_id: str, context: RequestContext) -> Thread:
        thread = await self.store.load_thread(thread_id, context)
        items = await self.store.load_shown_items(thread_id, None, DEFAULT_PAGE_SIZE, "asc", context)
        return Thread(**thread.model_dump(exclude={"metadata"}), items=items)

    async def _list_items(self, params: ItemsListParams, context: RequestContext) -> Page[ThreadItem]:
        page = await self.store.load_shown_items(
            params.thread_id, params.after, params.limit or DEFAULT_PAGE_SIZE, params.order, context
        )
        if not page.data:
            # The store answers for an absent thread, or somebody else's, with an empty page.
            await self.store.load_thread(params.thread_id, context)
        return page

    async def _asked_or_answered(
        self, thread: ThreadMetadata, context: RequestContext
    ) -> AsyncIterator[ThreadStreamEvent]:
        """The next of the client tools that were called at once; the model goes on when all have their outputs."""
        while (call := next_call(thread)) is not None:
            if not await self._is_there(call, context):
                # Saved before it is told, and told before it is forgotten.
                await self.store.add_thread_item(thread.id, call, context)
                yield ThreadItemDoneEvent(item=call)
                return
        async for event in self.respond(thread, None, context):
            yield event

    async def _is_there(self, item: ThreadItem, context: RequestContext) -> bool:
        try:
            await self.store.load_item(item.thread_id, item.id, context)
        except NotFound:
            return False
        return True

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
