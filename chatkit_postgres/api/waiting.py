"""GET /api/threads/waiting: the threads of the user in which a question waits for an answer."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore

MAX_THREADS = 1000


def waiting_router(store: DatabaseStore, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/api/threads/waiting")
    async def waiting(context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        threads = await store.approvals.waiting(context, limit=MAX_THREADS)
        data = [{"thread_id": waiting.thread_id, "since": waiting.since.isoformat()} for waiting in threads]
        return JSONResponse({"data": data}, headers={"Cache-Control": "no-store"})

    return router
