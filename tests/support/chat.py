"""Runs turns in the test's own process, wired as in ``main`` but without HTTP, with a scripted assistant."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from chatkit.agents import AgentContext
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    InferenceOptions,
    StreamingReq,
    ThreadAddUserMessageParams,
    ThreadCreateParams,
    ThreadItem,
    ThreadItemUpdatedEvent,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadStreamEvent,
    UserMessageInput,
    UserMessageTextContent,
)
from obstore.store import MemoryStore
from sqlalchemy import text

from chatkit_postgres.assistant import AgentAssistant, Assistant, Choices
from chatkit_postgres.assistant.default import build
from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.links import Links
from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.chat.turns.admission import AdmissionRules
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.chat.turns.running_turn import OnDisconnect, RunningTurn, TurnLimits
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import WriteSession
from tests.support.items import NAIVE
from tests.support.processes import parse_events
from tests.support.sql import sql_connection

SILENCE = 10


def file_store(store: DatabaseStore) -> Attachments:
    """Attachments whose object storage is in memory."""
    return Attachments(store, ObjectStorage(MemoryStore()), Links("s" * 32, seconds=3600, upload_seconds=900))


class Chat:
    """The store, server and turn runner, wired as in ``main``."""

    def __init__(
        self,
        store: DatabaseStore,
        assistant: Assistant,
        limits: TurnLimits | None = None,
        on_disconnect: OnDisconnect = "stop",
        admission: AdmissionRules | None = None,
    ) -> None:
        self.store = store
        self.attachments = file_store(store)
        self.server = ChatServer(store, assistant, self.attachments)
        self.runner = TurnRunner(
            store, self.server.encode, Metrics(), limits=limits, admission=admission, on_disconnect=on_disconnect
        )
        self.tokens_per_day: int | None = None

    async def start(self, request: StreamingReq) -> RunningTurn:
        session = WriteSession(request.type)
        context = RequestContext(user_id="alice", session=session, tokens_per_day=self.tokens_per_day)
        draft = Draft()
        return await self.runner.start(self.server.stream(request, context, draft), context, draft)

    async def events(self, request: StreamingReq) -> list[dict[str, Any]]:
        return await remaining_events(await self.start(request))


def demo_assistant() -> AgentAssistant:
    """The default agent on the demo model, without pauses between deltas."""
    assistant = AgentAssistant(build())
    assistant.prepare(DemoModels(seconds_per_word=0), Choices())
    return assistant


async def remaining_events(turn: RunningTurn) -> list[dict[str, Any]]:
    """Waits until the turn ends; returns all of its events."""
    reader, received = turn.buffer.read_from_start(), b""
    while frames := await reader.read(SILENCE):
        received += frames
    return parse_events(received.decode())


async def wait_for_text(turn: RunningTurn, text: bytes) -> None:
    reader, received = turn.buffer.read_from_start(), b""
    while text not in received:
        received += await reader.read(SILENCE) or b""


def create(text: str) -> ThreadsCreateReq:
    return ThreadsCreateReq(params=ThreadCreateParams(input=_input(text)))


def add_message(thread_id: str, text: str) -> ThreadsAddUserMessageReq:
    return ThreadsAddUserMessageReq(params=ThreadAddUserMessageParams(input=_input(text), thread_id=thread_id))


def _input(text: str) -> UserMessageInput:
    return UserMessageInput(
        content=[UserMessageTextContent(text=text)], attachments=[], inference_options=InferenceOptions()
    )


def message(item_id: str, text: str = "") -> AssistantMessageItem:
    return AssistantMessageItem(
        id=item_id, thread_id="?", created_at=NAIVE, content=[AssistantMessageContent(text=text)]
    )


def delta(item_id: str, text: str) -> ThreadItemUpdatedEvent:
    update = AssistantMessageContentPartTextDelta(content_index=0, delta=text)
    return ThreadItemUpdatedEvent(item_id=item_id, update=update)


class Scripted(Assistant):
    """Yields the given events; raises a given exception; waits for a given ``asyncio.Event``."""

    def __init__(self, *script: ThreadStreamEvent | Exception | asyncio.Event) -> None:
        self.script = script
        self.ended = False

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.ended = True


async def stored(store: DatabaseStore, query: str) -> list[dict[str, Any]]:
    async with sql_connection(store.database) as connection:
        return [dict(row) for row in (await connection.execute(text(query))).mappings()]
