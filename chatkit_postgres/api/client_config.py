"""GET /api/client-config: what the server allows, in the shape of ChatKit's options for a front end."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.schemas import ClientConfig
from chatkit_postgres.context import RequestContext


def client_config_router(config: ClientConfig, authenticate: Authenticator) -> APIRouter:
    router = APIRouter()
    body = config.model_dump_json(by_alias=True, exclude_none=True)

    @router.get("/api/client-config")
    async def client_config(_: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router
