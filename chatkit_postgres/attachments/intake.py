"""Receives a file: inserts its row, checks and stores its bytes, then marks it as ready."""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

from chatkit.types import Attachment, FileAttachment, ImageAttachment
from pydantic import AnyUrl

from chatkit_postgres.attachments import kinds
from chatkit_postgres.attachments.renditions import Renditions, content_type_of
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError, FileRefused, NotFound
from chatkit_postgres.file_references import reference_to
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import new_id

PREVIEW = ".preview"
TEXT = ".text"
_SLICE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileLimits:
    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000
    max_unsent: int = 50
    """Maximum number of a user's files that were not sent with a message yet."""
    accepted: kinds.AcceptedTypes = field(default_factory=lambda: kinds.AcceptedTypes(("*/*",)))
    text_characters: int = 64_000
    """Maximum characters of attached text in the input of one model call."""
    max_images: int = 8
    """Maximum attached images in the input of one model call."""


@dataclass(frozen=True)
class Upload:
    """A received file and its size in bytes."""

    file: BinaryIO
    size: int
    name: str = ""
    content_type: str = ""


@dataclass(frozen=True)
class Rendition:
    data: bytes
    content_type: str


class Intake:
    """Inserts the row first, so that all stored bytes have a row with their storage key."""

    def __init__(self, store: DatabaseStore, storage: Storage, limits: FileLimits, *, upload_seconds: float) -> None:
        self._store = store
        self._storage = storage
        self._limits = limits
        self._upload_seconds = upload_seconds
        self._renditions = Renditions(max_pixels=limits.max_pixels)

    async def announce(
        self, attachment: Attachment, context: RequestContext, *, declared_bytes: int, is_generated: bool = False
    ) -> str:
        """Insert the attachment's row, and return the prefix of its objects' keys. Raises TooManyAttachments, but not
        for an image of an answer, which the user has not uploaded."""
        storage_key = f"{secrets.token_hex(1)}/{secrets.token_hex(16)}"
        await self._store.attachments.create(
            attachment,
            context,
            storage_key=storage_key,
            declared_bytes=declared_bytes,
            upload_seconds=self._upload_seconds,
            max_unsent=None if is_generated else self._limits.max_unsent,
        )
        return storage_key

    async def take_new(
        self, attachment: Attachment, upload: Upload, context: RequestContext, *, is_generated: bool = False
    ) -> Attachment:
        """Store a file that was not announced; if that fails, its row is deleted."""
        storage_key = await self.announce(attachment, context, declared_bytes=upload.size, is_generated=is_generated)
        try:
            return await self.take(attachment, upload, context, storage_key=storage_key)
        except BaseException:
            with suppress(ChatError):
                await self._store.delete_attachment(attachment.id, context)
            raise

    async def take(
        self, attachment: Attachment, upload: Upload, context: RequestContext, *, storage_key: str
    ) -> Attachment:
        """Store a file under its announced key. Raises FileRefused before anything is written."""
        attachment, renditions = await self._examined(attachment, upload, context)
        attachment = attachment.model_copy(update={"metadata": {"size": upload.size}})
        digest = await asyncio.to_thread(_sha256, upload.file)
        key = f"{storage_key}/{digest}"
        upload.file.seek(0)
        disposition = disposition_of(attachment.name, attachment.mime_type)
        await self._storage.put(key, upload.file, content_type=attachment.mime_type, disposition=disposition)
        for ending, rendition in renditions.items():
            await self._storage.put(
                key + ending, rendition.data, content_type=rendition.content_type, disposition="attachment"
            )
        try:
            await self._store.attachments.finish_upload(attachment, context, stored_bytes=upload.size, sha256=digest)
        except NotFound:
            # Another upload with other bytes finished first, or the attachment was deleted.
            for ending in ("", *renditions):
                await self._storage.remove(key + ending)
            raise
        return attachment

    async def _examined(
        self, attachment: Attachment, upload: Upload, context: RequestContext
    ) -> tuple[Attachment, Mapping[str, Rendition]]:
        """The attachment with its detected type, and its renditions by key suffix."""
        if isinstance(attachment, ImageAttachment):
            preview = await self._renditions.preview(upload.file, context.user_id)
            detected = attachment.model_copy(update={"mime_type": preview.source_type})
            return detected, {PREVIEW: Rendition(preview.data, content_type_of(preview.data))}
        await asyncio.to_thread(kinds.check_content, upload.file, attachment.mime_type)
        if attachment.mime_type == kinds.PDF:
            text = await self._renditions.text_of_pdf(upload.file, context.user_id)
            return attachment, {TEXT: Rendition(text, "text/plain; charset=utf-8")} if text is not None else {}
        return attachment, {}


def new_attachment(name: str, content_type: str) -> Attachment:
    """Raises FileRefused for an image type that is not one of the passive raster formats."""
    attachment_id = new_id("attachment")
    if kinds.is_image(content_type):
        url = AnyUrl(reference_to(attachment_id))
        return ImageAttachment(id=attachment_id, name=name, mime_type=content_type, preview_url=url)
    if content_type.startswith("image/"):
        raise FileRefused
    return FileAttachment(id=attachment_id, name=name, mime_type=content_type)


def disposition_of(name: str, content_type: str) -> str:
    """Inline only for images of passive formats; all other files are downloads."""
    kind = "inline" if kinds.is_image(content_type) else "attachment"
    return f"{kind}; filename*=UTF-8''{quote(name, safe='')}"


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_SLICE_BYTES):
        digest.update(piece)
    return digest.hexdigest()
