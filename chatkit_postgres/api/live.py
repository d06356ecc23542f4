"""The running turn of a thread, from any process: GET …/live follows it, POST …/stop ends it."""

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.concurrency import ConcurrencyLimit
from chatkit_postgres.api.event_stream import EventStream
from chatkit_postgres.chat.turns.live import Followers
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Draining, TooManyFollowers
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store import DatabaseStore

MAX_FOLLOWERS = 10_000
MAX_FOLLOWERS_PER_USER = 20


class LiveEndpoint:
    def __init__(
        self,
        store: DatabaseStore,
        runner: TurnRunner,
        followers: Followers,
        metrics: Metrics,
        *,
        heartbeat_seconds: float,
        send_seconds: float,
    ) -> None:
        self._store = store
        self._runner = runner
        self._followers = followers
        self._metrics = metrics
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self._limit = ConcurrencyLimit(
            per_user=MAX_FOLLOWERS_PER_USER, altogether=MAX_FOLLOWERS, refusal=TooManyFollowers
        )

    async def live(self, thread_id: str, context: RequestContext) -> Response:
        bind_contextvars(thread_id=thread_id[:100])
        stale_seconds = self._runner.limits.stale_seconds
        turn = await self._store.live.find(thread_id, context, stale_seconds=stale_seconds)
        if self._runner.is_draining:
            raise Draining
        if turn is None:
            return Response(status_code=204)
        with ExitStack() as slot:
            slot.enter_context(self._limit.acquire(context.user_id))
            follower = await self._followers.follow(turn, context)
            slot.callback(self._followers.leave, follower)
            self._metrics.followers.inc()
            slot.callback(self._metrics.followers.dec)
            # The response gives the slot back.
            leave = slot.pop_all().close
        return EventStream(follower, leave, heartbeat_seconds=self._heartbeat_seconds, send_seconds=self._send_seconds)

    async def stop(self, thread_id: str, context: RequestContext) -> Response:
        bind_contextvars(thread_id=thread_id[:100])
        turn_id = await self._store.live.request_stop(thread_id, context)
        if turn_id is not None:
            self._runner.stop_turn(context.user_id, turn_id)
            # If its process died, nobody else would end it for a while.
            await self._store.turns.close_stale(thread_id, context, stale_seconds=self._runner.limits.stale_seconds)
        return JSONResponse({"stopped": turn_id is not None}, headers={"Cache-Control": "no-store"})


def live_router(endpoint: LiveEndpoint, authenticate: Authenticator) -> APIRouter:
    router = APIRouter(prefix="/api/threads/{thread_id}")

    @router.get("/live")
    async def live(thread_id: str, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return await endpoint.live(thread_id, context)

    @router.post("/stop")
    async def stop(thread_id: str, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return await endpoint.stop(thread_id, context)

    return router
