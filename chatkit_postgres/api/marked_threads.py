"""The threads of the user that a list of conversations marks: where a question waits, and where a turn is running."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.threads import ThreadSince

MAX_THREADS = 1000


def marked_threads_router(store: DatabaseStore, authenticate: Authenticator, *, stale_seconds: float) -> APIRouter:
    router = APIRouter()

    @router.get("/api/threads/waiting")
    async def waiting(context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return _listed(await store.approvals.waiting(context, limit=MAX_THREADS))

    @router.get("/api/threads/running")
    async def running(context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return _listed(await store.live.running(context, stale_seconds=stale_seconds, limit=MAX_THREADS))

    return router


def _listed(threads: Sequence[ThreadSince]) -> Response:
    data = [{"thread_id": thread.thread_id, "since": thread.since.isoformat()} for thread in threads]
    return JSONResponse({"data": data}, headers={"Cache-Control": "no-store"})
