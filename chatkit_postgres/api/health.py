"""Liveness and readiness."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from chatkit_postgres.auth.keys import Keys
from chatkit_postgres.db import Database
from chatkit_postgres.db.migrations import current_revision
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

    @router.get("/health/live")
    async def live() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/health/ready")
    async def ready() -> Response:
        current: str | None = None
        reachable = True
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                current = await current_revision(database)
        except Exception as error:  # noqa: BLE001 - with any error, the server is not ready
            logger.warning("not_ready", **failure(error))
            reachable = False
        has_keys = keys is None or await keys.refresh()
        is_able = reachable and is_served(current) and has_keys and is_started()
        # The other replicas take the next turns; what is open here goes on.
        is_ready = is_able and not is_draining() and not is_full()
        body = {
            "status": "draining" if is_draining() else "ok" if is_ready else "full" if is_able else "unavailable",
            "database": "ok" if reachable else "unreachable",
            "keys": "ok" if has_keys else "unknown",
            "lifespan": "ok" if is_started() else "not_started",
            "revision": {"seen": current, "wanted": head_revision},
        }
        if not is_ready:
            logger.info("readiness", **body)
        return JSONResponse(body, status_code=200 if is_ready else 503, headers={"Cache-Control": "no-store"})

    return router
