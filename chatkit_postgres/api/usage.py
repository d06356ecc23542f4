"""GET /api/usage: the token usage of the user."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.query import whole_number
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore

MAX_DAYS = 366
DEFAULT_DAYS = 30
COUNTED = ("turns", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def usage_router(store: DatabaseStore, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/api/usage")
    async def usage(request: Request, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        days = await store.turns.usage_by_day(
            context, days=whole_number(request.query_params, "days", maximum=MAX_DAYS) or DEFAULT_DAYS
        )
        total = {name: sum(day[name] for day in days) for name in COUNTED}
        return JSONResponse({"days": days, "total": total}, headers={"Cache-Control": "no-store"})

    return router
