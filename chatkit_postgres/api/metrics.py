"""GET /metrics, for Prometheus. Numbers only: nothing in them names a user."""

from fastapi import APIRouter
from starlette.responses import Response

from chatkit_postgres.observability.metrics import CONTENT_TYPE, Metrics


def metrics_router(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return router
