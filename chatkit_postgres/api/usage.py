"""GET /api/usage: the token usage of the user, and what is left of today's tokens."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.query import whole_number
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.limits import tomorrow

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
        budget = await _budget(store, context)
        return JSONResponse({"days": days, "total": total, "budget": budget}, headers={"Cache-Control": "no-store"})

    return router


async def _budget(store: DatabaseStore, context: RequestContext) -> dict[str, Any] | None:
    tokens = context.tokens_per_day
    if tokens is None:
        return None
    allowance = await store.limits.allowance(context)
    return {
        "tokens_per_day": tokens,
        "spent": allowance.tokens_spent,
        "held": allowance.tokens_held,
        "left": max(0, tokens - allowance.tokens_spent - allowance.tokens_held),
        "renewed_at": f"{tomorrow():%Y-%m-%dT%H:%M:%SZ}",
    }
