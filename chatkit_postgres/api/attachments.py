"""Files over HTTP: uploaded and read by links that are their own permission, or with a bearer token."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Send
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.authentication import Authenticate, Authentication
from chatkit_postgres.api.body import BodyLimits
from chatkit_postgres.api.concurrency import ConcurrencyLimit
from chatkit_postgres.api.public_url import PublicUrl
from chatkit_postgres.api.rate_limit import RateLimit
from chatkit_postgres.api.request_id import request_id_of
from chatkit_postgres.api.uploads import UploadLimits, read_upload
from chatkit_postgres.attachments.attachment_store import Attachments, Download, shown
from chatkit_postgres.attachments.links import Purpose
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError, NotFound, UserDisabled
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store.attachments import NO_FILE

# A page of anybody may show it, as a picture; nothing in it is ever run, whatever a browser takes it for.
SAFE = {
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}
SEND_SECONDS = 30


class FileResponse(StreamingResponse):
    """Bytes with a known length, for a client that goes on taking them."""

    def __init__(self, download: Download, *, seconds: int) -> None:
        headers = SAFE | {
            "Content-Length": str(download.size),
            "Content-Disposition": download.disposition,
            # Half of what the link is good for: a page that is loaded again gets the same link in that time.
            "Cache-Control": f"private, max-age={seconds // 2}, immutable",
        }
        super().__init__(download.pieces, media_type=download.content_type, headers=headers)

    async def stream_response(self, send: Send) -> None:
        async def put(message: Any) -> None:
            # A client that takes nothing for so long counts as gone.
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        await super().stream_response(put)


class FileEndpoint:
    """With ``from_bucket``, contents are fetched from the bucket itself, where there is one."""

    def __init__(
        self,
        attachments: Attachments,
        *,
        authenticate: Authentication,
        is_disabled: Callable[[str], Awaitable[bool]],
        rate_limit: RateLimit,
        metrics: Metrics,
        limits: UploadLimits,
        public_url: PublicUrl,
        from_bucket: bool,
    ) -> None:
        self._attachments = attachments
        self._authenticate = authenticate
        self._is_disabled = is_disabled
        self._rate_limit = rate_limit
        self._metrics = metrics
        self._slots = ConcurrencyLimit(per_user=4, altogether=64)
        self._limits = limits
        self._public_url = public_url
        self._from_bucket = from_bucket

    async def upload_directly(self, request: Request, context: RequestContext) -> Response:
        most = BodyLimits(max_bytes=self._limits.max_bytes, seconds=self._limits.seconds)
        with self._counted(), self._slots.hold(context.user_id):
            async with read_upload(request, most) as upload:
                return _json(shown(await self._attachments.receive_directly(upload, context)))

    async def describe(self, attachment_id: str, context: RequestContext) -> Response:
        return _json(await self._attachments.described(attachment_id, context))

    async def upload(self, request: Request, attachment_id: str) -> Response:
        context = await self._holder(request, attachment_id, "upload")
        with self._counted(), self._slots.hold(context.user_id):
            # One link can be tried again and again, until the right bytes have come.
            await self._rate_limit.spend(context.user_id)
            announced = await self._attachments.awaited(attachment_id, context)
            async with read_upload(request, self._limits.within(announced.declared_bytes or 0)) as upload:
                return _json(shown(await self._attachments.receive(announced, upload, context)))

    async def content(self, request: Request, attachment_id: str) -> Response:
        context = await self._holder(request, attachment_id, "content")
        if self._from_bucket and (address := await self._attachments.address(attachment_id, context)) is not None:
            return RedirectResponse(address, headers={"Cross-Origin-Resource-Policy": "cross-origin"})
        return self._told(await self._attachments.opened(attachment_id, "content", context))

    async def preview(self, request: Request, attachment_id: str) -> Response:
        context = await self._holder(request, attachment_id, "preview")
        return self._told(await self._attachments.opened(attachment_id, "preview", context))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ChatError as error:
            self._metrics.uploads.labels(error.code).inc()
            raise
        self._metrics.uploads.labels("stored").inc()

    async def _holder(self, request: Request, attachment_id: str, purpose: Purpose) -> RequestContext:
        """On whose behalf a link speaks. Raises NotFound, LinkExpired, UserDisabled, NotStarted; Unauthorized for a bad
        token."""
        self._authenticate.check_started()
        owner = self._attachments.links.owner_in(request.query_params.get("key", ""), attachment_id, purpose)
        bind_contextvars(user_id=owner)
        if await self._is_disabled(owner):
            raise UserDisabled
        # No token is needed; one that is there must be the owner's.
        if "authorization" in request.headers and (await self._authenticate(request)).user_id != owner:
            raise NotFound(NO_FILE)
        return RequestContext(owner, request_id_of(request.scope), public_url=self._public_url(request))

    def _told(self, download: Download) -> Response:
        return FileResponse(download, seconds=self._attachments.links.seconds)


def attachments_router(endpoint: FileEndpoint, authenticate: Authenticate) -> APIRouter:
    router = APIRouter(prefix="/api/attachments")

    @router.post("")
    async def upload_directly(request: Request, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return await endpoint.upload_directly(request, context)

    @router.get("/{attachment_id}")
    async def describe(attachment_id: str, context: Annotated[RequestContext, Depends(authenticate)]) -> Response:
        return await endpoint.describe(attachment_id, context)

    @router.post("/{attachment_id}/content")
    @router.put("/{attachment_id}/content")
    async def upload(request: Request, attachment_id: str) -> Response:
        return await endpoint.upload(request, attachment_id)

    @router.get("/{attachment_id}/content")
    async def content(request: Request, attachment_id: str) -> Response:
        return await endpoint.content(request, attachment_id)

    @router.get("/{attachment_id}/preview")
    async def preview(request: Request, attachment_id: str) -> Response:
        return await endpoint.preview(request, attachment_id)

    return router


def _json(body: object) -> Response:
    return JSONResponse(body, headers={"Cache-Control": "no-store"})
