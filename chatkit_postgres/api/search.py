"""GET /api/search: the messages and titles of the user with the words of a query."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.query import whole_number
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.cursors import MAX_ROWS


def search_router(store: DatabaseStore, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/api/search")
    async def search(request: Request, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        asked = request.query_params
        hits = await store.search.search(
            asked.get("q", ""),
            context,
            limit=whole_number(asked, "limit", maximum=MAX_ROWS),
            after=asked.get("after") or None,
        )
        data = [
            {
                "thread_id": hit.thread_id,
                "item_id": hit.item_id,
                "title": hit.title,
                "snippet": hit.snippet,
                "created_at": hit.created_at.isoformat(),
            }
            for hit in hits.data
        ]
        content = {"data": data, "has_more": hits.has_more, "after": hits.after}
        return JSONResponse(content, headers={"Cache-Control": "no-store"})

    return router
