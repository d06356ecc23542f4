"""GET /api/search: the messages and titles of the user with the words of a query."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.cursors import MAX_ROWS


def search_router(store: DatabaseStore, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/api/search")
    async def search(request: Request, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        asked = request.query_params
        hits = await store.search.search(
            asked.get("q", ""), context, limit=_limit(asked.get("limit")), after=asked.get("after") or None
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


def _limit(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 3 and 1 <= int(given) <= MAX_ROWS):
        raise Unprocessable(f"limit: 1 to {MAX_ROWS}.")
    return int(given)
