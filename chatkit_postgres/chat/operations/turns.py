"""The operations that run a turn: each opens it by its first write; then the answer is sent."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chatkit.server import agents_sdk_user_agent_override
from chatkit.types import (
    StreamOptions,
    StreamOptionsEvent,
    ThreadAddClientToolOutputParams,
    ThreadAddStructuredInputParams,
    ThreadAddUserMessageParams,
    ThreadCreatedEvent,
    ThreadCreateParams,
    ThreadCustomActionParams,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadRetryAfterItemParams,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.tools.client_tools import drop_calls, next_call
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.chat.failures import failure_event
from chatkit_postgres.chat.merge import LiveContext, Respond
from chatkit_postgres.chat.operations.actions import load_action
from chatkit_postgres.chat.operations.approvals import Approvals
from chatkit_postgres.chat.operations.messages import user_message
from chatkit_postgres.chat.operations.waiting_items import answered_questions, completed_call, is_stored
from chatkit_postgres.chat.pipeline import AnnounceThread, answer_pipeline
from chatkit_postgres.chat.titles import TitleTask
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.wire import thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NothingPending, Superseded
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore

MAX_ANSWER_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenedTurn:
    """What a turn streams once it is open."""

    thread: ThreadMetadata
    events: Events
    """The assistant's events."""
    title: TitleTask | None = None
    free_ids: Container[str] = frozenset()
    """Items with one of these ids do not count against the limit of the answer."""


Opening = AsyncGenerator[ThreadStreamEvent | OpenedTurn, None]
"""Opens a turn: yields the events of its first writes, and last the answer. It ends before the answer begins, so that
nothing of the request is kept in memory while the answer streams."""


class TurnOperations:
    def __init__(
        self,
        store: DatabaseStore,
        assistant: Assistant,
        attachments: Attachments,
        *,
        respond: Respond,
        stream_options: Callable[[ThreadMetadata, RequestContext], StreamOptions],
        max_answer_characters: int,
    ) -> None:
        self._store = store
        self._assistant = assistant
        self._attachments = attachments
        self._respond = respond
        self._stream_options = stream_options
        self._max_answer_characters = max_answer_characters
        self._approvals = Approvals(store, assistant, respond)

    async def create_thread(self, params: ThreadCreateParams, context: RequestContext) -> Opening:
        thread = ThreadMetadata(
            id=self._store.generate_thread_id(context),
            created_at=datetime.now(),  # noqa: DTZ005 - as the SDK's own
        )
        message = await user_message(self._store, params.input, thread, context)
        await self._store.threads.begin(thread, message, context)
        yield ThreadCreatedEvent(thread=thread_response(thread))
        yield ThreadItemDoneEvent(item=message)
        yield await self._answer(thread, message, context)

    async def add_message(self, params: ThreadAddUserMessageParams, context: RequestContext) -> Opening:
        thread = await self._store.load_thread(params.thread_id, context)
        message = await user_message(self._store, params.input, thread, context)
        # The statement that saves the message also assigns its attachments to the thread.
        await self._store.add_thread_item(thread.id, message, context)
        yield ThreadItemDoneEvent(item=message)
        for closed in await self._approvals.close_questions(thread, context):
            yield closed
        yield await self._answer(thread, message, context)

    async def retry(self, params: ThreadRetryAfterItemParams, context: RequestContext) -> Opening:
        thread = await self._store.load_thread(params.thread_id, context)
        message = await self._store.turns.open_retry(params.thread_id, params.item_id, context)
        for closed in await self._approvals.close_questions(thread, context):
            yield closed
        yield await self._answer(thread, message, context)

    async def add_tool_output(self, params: ThreadAddClientToolOutputParams, context: RequestContext) -> Opening:
        thread = await self._store.load_thread(params.thread_id, context)
        call = await completed_call(self._store, params, context)
        await self._store.turns.settle(thread.id, call, context)
        context.history_notes.answered = call
        called: set[str] = set()
        yield OpenedTurn(thread, self._call_next_or_respond(thread, context, called), free_ids=called)

    async def add_structured_input(self, params: ThreadAddStructuredInputParams, context: RequestContext) -> Opening:
        thread = await self._store.load_thread(params.thread_id, context)
        answers = await answered_questions(self._store, params, context)
        await self._store.turns.settle(thread.id, answers, context)
        context.history_notes.answered = answers

        async def replaced_then_answered() -> Events:
            yield ThreadItemReplacedEvent(item=answers)
            live = LiveContext.of(thread, self._store, context)
            async with aclosing(self._respond(live, None)) as answer:
                async for event in answer:
                    yield event

        yield OpenedTurn(thread, replaced_then_answered(), free_ids={answers.id})

    async def approve(self, params: ThreadCustomActionParams, context: RequestContext) -> Opening:
        """Answers a question of a run that waits for approvals."""
        thread = await self._store.load_thread(params.thread_id, context)
        yield OpenedTurn(thread, await self._approvals.answer(thread, params, context), free_ids={params.item_id or ""})

    async def resume(self, thread_id: str, asked_by: UUID, context: RequestContext) -> Opening:
        """Goes on with an answered run whose turn was interrupted. Raises NothingPending if another turn does."""
        thread = await self._store.load_thread(thread_id, context)
        events = await self._approvals.resume(thread, asked_by, context)
        if events is None:
            raise NothingPending
        yield OpenedTurn(thread, events)

    async def give_up(self, thread_id: str, asked_by: UUID, context: RequestContext) -> bool:
        thread = await self._store.load_thread(thread_id, context)
        return await self._approvals.give_up(thread, asked_by, context)

    async def act(self, params: ThreadCustomActionParams, context: RequestContext) -> Opening:
        thread, action = await load_action(self._store, self._assistant, params, context)
        await self._store.turns.open(thread.id, context)
        yield OpenedTurn(thread, action.events(LiveContext.of(thread, self._store, context)))

    async def send(self, opened: OpenedTurn, context: RequestContext, draft: Draft) -> Events:
        """The stream's options, the events of the answer that pass the pipeline, and the error that ended them."""
        thread, title = opened.thread, opened.title
        try:
            announce = AnnounceThread(self._store, thread, context, title)
            pipeline = answer_pipeline(
                self._store,
                context.files or self._attachments.of(context),
                thread,
                context,
                draft=draft,
                announce=announce,
                max_characters=self._max_answer_characters,
                free_ids=opened.free_ids,
            )
            # A title that needs no waiting is applied before the answer begins, and saved even if the answer fails.
            await asyncio.sleep(0)
            yield StreamOptionsEvent(stream_options=self._stream_options(thread, context))
            try:
                with agents_sdk_user_agent_override():
                    async with aclosing(pipeline.run(opened.events)) as events:
                        async for event in events:
                            yield event
            except Exception as error:  # noqa: BLE001 - whatever an assistant's code raises
                if isinstance(error, Superseded) and context.outcome.state == "waiting":
                    # The answers to its questions were faster than its end.
                    return
                yield failure_event(error, context.outcome)
                for event in await announce.changes():
                    yield event
        finally:
            if title is not None:
                title.cancel()

    async def _answer(self, thread: ThreadMetadata, message: UserMessageItem, context: RequestContext) -> OpenedTurn:
        """Answer a user's message, which makes client tools void that still wait, and give a new thread its title."""
        if drop_calls(thread):
            await self._store.save_thread(thread, context)
        live = LiveContext.of(thread, self._store, context)
        events = self._respond(live, message)
        title = TitleTask(thread, self._assistant, message, live) if thread.title is None else None
        return OpenedTurn(thread, events, title=title)

    async def _call_next_or_respond(self, thread: ThreadMetadata, context: RequestContext, called: set[str]) -> Events:
        """The next of the client tools that were called together, whose id is added to ``called``; the model continues
        when all have their outputs."""
        while (call := next_call(thread)) is not None:
            if not await is_stored(self._store, call, context):
                # Saved before it is sent, and sent before the thread forgets it.
                await self._store.add_thread_item(thread.id, call, context)
                called.add(call.id)
                yield ThreadItemDoneEvent(item=call)
                return
        live = LiveContext.of(thread, self._store, context)
        async with aclosing(self._respond(live, None)) as events:
            async for event in events:
                yield event
