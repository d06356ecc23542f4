"""GET /api/staff/…: the conversations of a user, for tokens of the staff, as the user sees them. Each look is an entry
of the audit log, which is written first."""

from typing import Annotated, Literal

from chatkit.types import ItemsListParams, ThreadListParams
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from chatkit_postgres.api.authentication import Authenticator
from chatkit_postgres.api.query import whole_number
from chatkit_postgres.auth.user import is_user_id
from chatkit_postgres.chat.operations.threads import get_thread, list_items, list_threads
from chatkit_postgres.chat.wire import to_json
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound, Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.cursors import DEFAULT_ROWS, MAX_ROWS
from chatkit_postgres.user_data.audit import Action, Audit, Look
from chatkit_postgres.user_data.looks import is_user

# The ids of some issuers have slashes.
THREADS = "/api/staff/users/{user_id:path}/threads"


class StaffEndpoint:
    def __init__(self, store: DatabaseStore, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def threads(self, user_id: str, request: Request, staff: RequestContext) -> Response:
        _check_staff(staff, user_id)
        params = ThreadListParams(limit=_limit(request), order=_order(request, "desc"), after=_after(request))
        owner = await self._looking("threads.list", staff, user_id)
        page = await list_threads(self._store, params, owner)
        if not page.data and not await is_user(self._store.database, user_id):
            raise NotFound
        return _response(page)

    async def thread(self, user_id: str, thread_id: str, staff: RequestContext) -> Response:
        _check_staff(staff, user_id)
        owner = await self._looking("thread.show", staff, user_id, thread_id)
        return _response(await get_thread(self._store, thread_id, owner))

    async def items(self, user_id: str, thread_id: str, request: Request, staff: RequestContext) -> Response:
        _check_staff(staff, user_id)
        params = ItemsListParams(
            thread_id=thread_id, limit=_limit(request), order=_order(request, "asc"), after=_after(request)
        )
        owner = await self._looking("items.list", staff, user_id, thread_id)
        return _response(await list_items(self._store, params, owner))

    async def _looking(
        self, action: Action, staff: RequestContext, user_id: str, thread_id: str | None = None
    ) -> RequestContext:
        """The context of the user who is looked at, after the look was written down."""
        await self._audit.record(Look(staff.user_id, "http", action, user_id, thread_id))
        return RequestContext(user_id, request_id=staff.request_id)


def _check_staff(context: RequestContext, user_id: str) -> None:
    """Everybody else is told what is told of a user who does not exist."""
    if not context.is_staff or not is_user_id(user_id):
        raise NotFound


def staff_router(endpoint: StaffEndpoint, authenticate: Authenticator) -> APIRouter:
    router = APIRouter(prefix=THREADS)

    @router.get("/{thread_id}/items")
    async def items(
        user_id: str, thread_id: str, request: Request, context: Annotated[RequestContext, Depends(authenticate)]
    ) -> Response:
        return await endpoint.items(user_id, thread_id, request, context)

    @router.get("/{thread_id}")
    async def thread(
        user_id: str, thread_id: str, context: Annotated[RequestContext, Depends(authenticate)]
    ) -> Response:
        return await endpoint.thread(user_id, thread_id, context)

    @router.get("")
    async def threads(
        user_id: str, request: Request, context: Annotated[RequestContext, Depends(authenticate)]
    ) -> Response:
        return await endpoint.threads(user_id, request, context)

    return router


def _limit(request: Request) -> int:
    return whole_number(request.query_params, "limit", maximum=MAX_ROWS) or DEFAULT_ROWS


def _after(request: Request) -> str | None:
    return request.query_params.get("after") or None


def _order(request: Request, default: Literal["asc", "desc"]) -> Literal["asc", "desc"]:
    match request.query_params.get("order", default):
        case "asc":
            return "asc"
        case "desc":
            return "desc"
        case _:
            raise Unprocessable("order: asc or desc.")


def _response(model: BaseModel) -> Response:
    return Response(to_json(model), media_type="application/json", headers={"Cache-Control": "no-store"})
