"""GET /api/export: everything of the user, as a ZIP file."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.bounded_stream import BoundedStream
from chatkit_postgres.api.concurrency import ConcurrencyLimit
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound, TooManyExports
from chatkit_postgres.user_data.export import Export

NOTHING = "There is nothing of yours here yet."
HEADERS = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="chats.zip"'}


class ExportResponse(BoundedStream):
    media_type = "application/zip"

    def __init__(self, export: Export, leave: Callable[[], None]) -> None:
        super().__init__(_pieces(export), headers=HEADERS)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def export_router(export_of: Callable[[str], Export], authenticate: Authenticator) -> APIRouter:
    router = APIRouter()
    limit = ConcurrencyLimit(per_user=1, altogether=8, refusal=TooManyExports)

    @router.get("/api/export")
    async def export(context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        with ExitStack() as slot:
            slot.enter_context(limit.acquire(context.user_id))
            exporting = export_of(context.user_id)
            if await exporting.extent() is None:
                raise NotFound(NOTHING)
            # The response gives the slot back.
            return ExportResponse(exporting, slot.pop_all().close)

    return router


async def _pieces(export: Export) -> AsyncIterator[bytes]:
    async for piece in export.pieces():
        if piece.data:
            yield piece.data
