"""HTTP endpoints of files: uploads and downloads by signed URL, or with a bearer token."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.authentication import Authentication, Authenticator
from chatkit_postgres.api.body import BodyLimits
from chatkit_postgres.api.bounded_stream import BoundedStream
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

# Pages of any site may embed a file as an image, but no browser may run scripts in one.
FILE_HEADERS = {
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}


class FileResponse(BoundedStream):
    """Streams a file of known length."""

    def __init__(self, download: Download, *, seconds: int) -> None:
        headers = FILE_HEADERS | {
            "Content-Length": str(download.size),
            "Content-Disposition": download.disposition,
            # Half the lifetime of the URL: within that time, a reloaded page gets the same URL.
            "Cache-Control": f"private, max-age={seconds // 2}, immutable",
        }
        super().__init__(download.pieces, media_type=download.content_type, headers=headers)


class FileEndpoint:
    """With ``from_bucket``, downloads are redirected to the bucket, if the storage is one."""

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
        self._uploads = ConcurrencyLimit(per_user=4, altogether=64)
        self._limits = limits
        self._public_url = public_url
        self._from_bucket = from_bucket

    async def upload_directly(self, request: Request, context: RequestContext) -> Response:
        body_limits = BodyLimits(max_bytes=self._limits.max_bytes, seconds=self._limits.seconds)
        with self._counting_outcome(), self._uploads.acquire(context.user_id):
            async with read_upload(request, body_limits) as upload:
                return _json(shown(await self._attachments.receive_directly(upload, context)))

    async def describe(self, attachment_id: str, context: RequestContext) -> Response:
        return _json(await self._attachments.described(attachment_id, context))

    async def upload(self, request: Request, attachment_id: str) -> Response:
        context = await self._context_of_url(request, attachment_id, "upload")
        with self._counting_outcome(), self._uploads.acquire(context.user_id):
            # A URL allows any number of attempts until an upload succeeds, so each attempt counts.
            await self._rate_limit.spend(context.user_id)
            announced = await self._attachments.awaited(attachment_id, context)
            async with read_upload(request, self._limits.within(announced.declared_bytes or 0)) as upload:
                return _json(shown(await self._attachments.receive(announced, upload, context)))

    async def content(self, request: Request, attachment_id: str) -> Response:
        context = await self._context_of_url(request, attachment_id, "content")
        if self._from_bucket and (url := await self._attachments.signed_url(attachment_id, context)) is not None:
            return RedirectResponse(url, headers={"Cross-Origin-Resource-Policy": "cross-origin"})
        return self._file_response(await self._attachments.opened(attachment_id, "content", context))

    async def preview(self, request: Request, attachment_id: str) -> Response:
        context = await self._context_of_url(request, attachment_id, "preview")
        return self._file_response(await self._attachments.opened(attachment_id, "preview", context))

    @contextmanager
    def _counting_outcome(self) -> Iterator[None]:
        try:
            yield
        except ChatError as error:
            self._metrics.uploads.labels(error.code).inc()
            raise
        self._metrics.uploads.labels("stored").inc()

    async def _context_of_url(self, request: Request, attachment_id: str, purpose: Purpose) -> RequestContext:
        """The context of the user for whom a URL was signed. Raises NotFound, LinkExpired, UserDisabled, NotStarted;
        Unauthorized for a bad token."""
        self._authenticate.check_started()
        owner = self._attachments.links.owner_in(request.query_params.get("key", ""), attachment_id, purpose)
        bind_contextvars(user_id=owner)
        if await self._is_disabled(owner):
            raise UserDisabled
        # No token is needed, but a token that is sent must be the owner's.
        if "authorization" in request.headers and (await self._authenticate(request)).user_id != owner:
            raise NotFound(NO_FILE)
        return RequestContext(owner, request_id_of(request.scope), public_url=self._public_url(request))

    def _file_response(self, download: Download) -> Response:
        return FileResponse(download, seconds=self._attachments.links.seconds)


def attachments_router(endpoint: FileEndpoint, authenticate: Authenticator) -> APIRouter:
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
