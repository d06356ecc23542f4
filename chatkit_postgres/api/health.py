"""Liveness and readiness."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from chatkit_postgres.auth.keys import Keys
from chatkit_postgres.db import Database
from chatkit_postgres.db.migrations import current_revision, is_read_only
from chatkit_postgres.observability.logs import failure, get_logger

DATABASE_SECONDS = 5

logger = get_logger(__name__)


def health_router(
    database: Database,
    keys: Keys | None,
    *,
    head_revision: str,
    is_served: Callable[[str | None], bool],
    is_draining: Callable[[], bool],
    is_full: Callable[[], bool],
    is_started: Callable[[], bool],
) -> APIRouter:
    router = APIRouter()
    last: dict[str, object] | None = None

    @router.get("/health/live")
    async def live() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/health/ready")
    async def ready() -> Response:
        nonlocal last
        current: str | None = None
        state = "ok"
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                current = await current_revision(database)
                if await is_read_only(database):
                    state = "read_only"
        except Exception as error:  # noqa: BLE001 - with any error, the server is not ready
            logger.warning("not_ready", **failure(error))
            state = "unreachable"
        has_keys = keys is None or await keys.refresh()
        is_able = state == "ok" and is_served(current) and has_keys and is_started()
        # The other replicas take the next turns; what is open here goes on.
        is_ready = is_able and not is_draining() and not is_full()
        body: dict[str, object] = {
            "status": "draining" if is_draining() else "ok" if is_ready else "full" if is_able else "unavailable",
            "database": state,
            "keys": "ok" if has_keys else "unknown",
            "lifespan": "ok" if is_started() else "not_started",
            "revision": {"seen": current, "wanted": head_revision},
        }
        if body != last:
            # Those who watch ask every few seconds.
            (logger.info if is_ready else logger.warning)("readiness", **body)
            last = body
        return JSONResponse(body, status_code=200 if is_ready else 503, headers={"Cache-Control": "no-store"})

    return router
