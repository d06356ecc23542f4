"""POST /api/chatkit: every operation of the protocol."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated

from chatkit.types import ChatKitReq, StreamingReq, is_streaming_req
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.body import BodyLimits, declared_bytes, read_json_body
from chatkit_postgres.api.concurrency import ConcurrencyLimit
from chatkit_postgres.api.event_stream import EventStream, Readable
from chatkit_postgres.api.idempotency import idempotency_key, request_hash
from chatkit_postgres.api.on_disconnect import on_disconnect
from chatkit_postgres.chat.requests import RequestLimits, client_context, parse_request
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.replay import Replay
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.chat.turns.running_turn import OnDisconnect, RunningTurn
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import BudgetUsedUp, KeyReused, KeyTaken, TooManyFollowers, TooManyTurns
from chatkit_postgres.store.session import WriteSession


@dataclass(frozen=True)
class EdgeLimits:
    """Limits for receiving a request and for sending its response."""

    body: BodyLimits
    request: RequestLimits
    heartbeat_seconds: float
    send_seconds: float = 30


class ChatEndpoint:
    def __init__(self, server: ChatServer, runner: TurnRunner, limits: EdgeLimits) -> None:
        self._server = server
        self._runner = runner
        self._limits = limits
        self._large = ConcurrencyLimit(per_user=2, altogether=16)
        # Each asks the database twice a second.
        self._replays = ConcurrencyLimit(per_user=20, altogether=1000, refusal=TooManyFollowers)

    async def answer(self, request: Request, context: RequestContext) -> Response:
        small = self._limits.request.bytes
        declared = declared_bytes(request)
        is_small = declared is not None and declared <= small
        if is_small or self._limits.body.max_bytes <= small:
            return await self._answer(parse_request(await self._body(request), self._limits.request), context, request)
        # A recording, or a body of unknown size: few at once, and large ones are parsed outside of the event loop.
        with self._large.acquire(context.user_id):
            body = await self._body(request)
            if len(body) > small:
                operation = await asyncio.to_thread(parse_request, body, self._limits.request)
                return await self._answer(operation, context, request)
        return await self._answer(parse_request(body, self._limits.request), context, request)

    async def _body(self, request: Request) -> bytes:
        return await read_json_body(request, self._limits.body)

    async def _answer(self, operation: ChatKitReq, context: RequestContext, request: Request) -> Response:
        bind_contextvars(operation=operation.type)
        thread_id = getattr(operation.params, "thread_id", None)
        if thread_id is not None:
            bind_contextvars(thread_id=thread_id[:100])
        context = replace(context, client_context=client_context(operation, self._limits.request))
        if not is_streaming_req(operation):
            answer = await self._server.answer(operation, context)
            return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})
        key, disconnect = idempotency_key(request), on_disconnect(request)
        if key is None:
            running = await self._run(operation, WriteSession(operation.type), context)
            return self._read(running, disconnect)
        return await self._run_once(operation, key, context, disconnect)

    async def _run(self, operation: StreamingReq, session: WriteSession, context: RequestContext) -> RunningTurn:
        # For every line of the turn, as `thread show` names it.
        bind_contextvars(turn_id=str(session.turn_id))
        context, draft = context.with_session(session), Draft()
        events = self._server.stream(operation, context, draft)
        # A turn that has to wait for others gets its response, and heartbeats on it, in time.
        return await self._runner.start(events, context, draft, wait_seconds=self._limits.heartbeat_seconds)

    async def _run_once(
        self, operation: StreamingReq, key: str, context: RequestContext, disconnect: OnDisconnect | None
    ) -> Response:
        digest = request_hash(operation)
        try:
            running = self._runner.find(key, digest, context)
            if running is None:
                session = WriteSession(operation.type, idempotency_key=key, request_hash=digest)
                running = await self._run(operation, session, context)
            else:
                await running.primed(self._limits.heartbeat_seconds)
            # A turn whose last reader has left in the meantime is stopping; its items are read from the database.
            return (
                self._read(running, disconnect) if not running.is_stopping else await self._replay(key, digest, context)
            )
        except KeyTaken:
            # Another request has opened the turn: here, in another process, or before a restart.
            running = self._runner.find(key, digest, context)
            if running is not None and running.session.is_open:
                return self._read(running, disconnect)
            return await self._replay(key, digest, context)
        except (TooManyTurns, BudgetUsedUp):
            # For one turn more. A turn that was opened by this request before is answered with what there is of it.
            if await self._server.store.turns.find(key, context) is None:
                raise
            return await self._replay(key, digest, context)

    async def _replay(self, key: str, digest: str, context: RequestContext) -> Response:
        with ExitStack() as slot:
            slot.enter_context(self._replays.acquire(context.user_id))
            replay = await self._replayed(key, digest, context)
            # The response gives the slot back.
            leave = slot.pop_all().close
        return self._stream(replay, leave)

    async def _replayed(self, key: str, digest: str, context: RequestContext) -> Replay:
        entry = await self._server.store.turns.find(key, context)
        if entry is None:
            # The turn expired, or was deleted with its user, between the two statements.
            raise KeyTaken
        if entry.request_hash != digest:
            raise KeyReused
        return Replay(
            entry,
            key,
            context,
            store=self._server.store,
            encode=self._server.encode,
            stale_seconds=self._runner.limits.stale_seconds,
            is_draining=lambda: self._runner.is_draining,
        )

    def _read(self, running: RunningTurn, disconnect: OnDisconnect | None) -> Response:
        running.on_disconnect = disconnect or running.on_disconnect
        reader = self._runner.join(running)
        return self._stream(reader, lambda: self._runner.leave(running, reader))

    def _stream(self, events: Readable, leave: Callable[[], None]) -> Response:
        return EventStream(
            events,
            leave,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            send_seconds=self._limits.send_seconds,
        )


def chatkit_router(endpoint: ChatEndpoint, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.post("/api/chatkit")
    async def chatkit(request: Request, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return await endpoint.answer(request, context)

    return router
