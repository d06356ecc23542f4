"""The attachment operations of the protocol and of HTTP: announce, upload, read, delete."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from chatkit.store import AttachmentStore
from chatkit.types import Attachment, AttachmentCreateParams, AttachmentUploadDescriptor
from pydantic import AnyUrl

from chatkit_postgres.attachments import kinds
from chatkit_postgres.attachments.files import OwnFiles
from chatkit_postgres.attachments.intake import PREVIEW, FileLimits, Intake, Upload, disposition_of, new_attachment
from chatkit_postgres.attachments.links import Links
from chatkit_postgres.attachments.references import Link, attachment_with_link
from chatkit_postgres.attachments.renditions import content_type_of
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AlreadyUploaded, FileTooLarge, LinkExpired, NotFound, NotSupported, Unprocessable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.attachments import NO_FILE, StoredFile

logger = get_logger(__name__)

OFF = "This server does not take attachments."


@dataclass(frozen=True)
class Download:
    content_type: str
    disposition: str
    size: int
    pieces: AsyncIterator[bytes]


class Attachments(AttachmentStore[RequestContext]):
    def __init__(self, store: DatabaseStore, storage: Storage, links: Links, limits: FileLimits | None = None) -> None:
        self.links = links
        self.limits = limits or FileLimits()
        self._store = store
        self._storage = storage
        self._intake = Intake(store, storage, self.limits, upload_seconds=links.upload_seconds)

    def link(self, context: RequestContext) -> Link:
        """A function that makes signed URLs for the user of this request."""
        return lambda attachment_id, purpose: self.links.to_read(
            context.public_url, context.user_id, attachment_id, purpose
        )

    def of(self, context: RequestContext) -> OwnFiles:
        """The files of this request's user, for an assistant."""
        return OwnFiles(self._store, self._storage, self._intake, self.limits, context)

    async def create_attachment(self, input: AttachmentCreateParams, context: RequestContext) -> Attachment:  # noqa: A002 - the SDK's signature
        """Insert the attachment's row, and return the URL for its upload. Raises NotSupported, Unprocessable,
        FileTooLarge, FileRefused or TooManyAttachments."""
        attachment = self._accepted(input.name, input.mime_type, input.size)
        await self._intake.announce(attachment, context, declared_bytes=input.size)
        url = self.links.to_upload(context.public_url, context.user_id, attachment.id)
        descriptor = AttachmentUploadDescriptor(url=AnyUrl(url), method="POST")
        return self._with_link(attachment, context).model_copy(update={"upload_descriptor": descriptor})

    async def awaited(self, attachment_id: str, context: RequestContext) -> StoredFile:
        """The announced file, before its upload is read. Raises NotFound, LinkExpired or AlreadyUploaded."""
        stored = await self._store.attachments.load_file(attachment_id, context)
        if stored.state != "pending":
            raise AlreadyUploaded
        if stored.is_late or stored.storage_key is None:
            raise LinkExpired
        return stored

    async def receive(self, stored: StoredFile, upload: Upload, context: RequestContext) -> Attachment:
        """Store an announced file. Raises Unprocessable if its size is not the announced one, and FileRefused."""
        if upload.size != stored.declared_bytes:
            raise Unprocessable(f"file: {stored.declared_bytes} bytes were announced, but {upload.size} were received.")
        # Another upload of the same file may have finished while this one was received.
        stored = await self.awaited(stored.attachment.id, context)
        taken = await self._intake.take(stored.attachment, upload, context, storage_key=str(stored.storage_key))
        return self._with_link(taken, context)

    async def receive_directly(self, upload: Upload, context: RequestContext) -> Attachment:
        """Store a file that was not announced. Raises like ``create_attachment``."""
        attachment = self._accepted(upload.name, upload.content_type, upload.size)
        return self._with_link(await self._intake.take_new(attachment, upload, context), context)

    async def delete_attachment(self, attachment_id: str, context: RequestContext) -> None:
        """Mark the attachment as deleted: a background task removes its bytes, then its row. Raises NotFound."""
        await self._store.attachments.load_file(attachment_id, context)
        await self._store.delete_attachment(attachment_id, context)

    async def described(self, attachment_id: str, context: RequestContext) -> dict[str, Any]:
        """The attachment as ChatKit's JSON, with signed URLs; ``download_url`` only once its bytes are stored."""
        stored = await self._store.attachments.load_file(attachment_id, context)
        described = shown(self._with_link(stored.attachment, context))
        if stored.state == "ready":
            described["download_url"] = self.link(context)(attachment_id, "content")
        return described

    async def opened(
        self, attachment_id: str, purpose: Literal["content", "preview"], context: RequestContext
    ) -> Download:
        """Open a file for reading. Raises NotFound, also while its bytes are not stored yet."""
        stored, key = await self._ready(attachment_id, context)
        if purpose == "preview" and not kinds.is_image(str(stored.content_type)):
            raise NotFound(NO_FILE)
        try:
            size, pieces = await self._storage.open(key + PREVIEW if purpose == "preview" else key)
        except NotFound:
            logger.error("object_missing", attachment_id=attachment_id, storage_key=stored.storage_key)  # noqa: TRY400 - there is no more to know
            raise
        if purpose == "preview":
            first = await anext(pieces, b"")
            return Download(content_type_of(first), "inline", size, _again(first, pieces))
        kind = str(stored.content_type)
        return Download(kind, disposition_of(stored.attachment.name, kind), size, pieces)

    async def signed_url(self, attachment_id: str, context: RequestContext) -> str | None:
        """The bucket's own signed URL of the content; None if the storage is a directory."""
        _, key = await self._ready(attachment_id, context)
        return await self._storage.signed_url(key, self.links.seconds)

    async def _ready(self, attachment_id: str, context: RequestContext) -> tuple[StoredFile, str]:
        stored = await self._store.attachments.load_file(attachment_id, context)
        if stored.state != "ready" or stored.storage_key is None:
            raise NotFound(NO_FILE)
        return stored, f"{stored.storage_key}/{stored.sha256}"

    def _accepted(self, given_name: str, given_type: str, size: int) -> Attachment:
        if not self.limits.accepted:
            raise NotSupported(OFF)
        if size < 1:
            raise Unprocessable("This file is empty (size).")
        if size > self.limits.max_bytes:
            raise FileTooLarge(f"Files may have up to {self.limits.max_bytes / 2**20:.3g} MB.")
        name = kinds.shown_name(given_name)
        content_type = kinds.declared_type(given_type, name)
        self.limits.accepted.check(content_type)
        return new_attachment(name, content_type)

    def _with_link(self, attachment: Attachment, context: RequestContext) -> Attachment:
        return attachment_with_link(attachment, self.link(context))


def shown(attachment: Attachment) -> dict[str, Any]:
    """The attachment as JSON for its owner, without our internal metadata."""
    return attachment.model_dump(mode="json", exclude_none=True, context={"exclude_metadata": True})


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
