"""Reads and stores the files of one user, for an assistant."""

import io
from collections.abc import Callable

from chatkit_postgres.attachments import kinds
from chatkit_postgres.attachments.intake import PREVIEW, TEXT, FileLimits, Intake, Upload, new_attachment
from chatkit_postgres.attachments.renditions import MAX_PREVIEW_BYTES, content_type_of
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AnswerTooLong, FileTooLarge, NotFound
from chatkit_postgres.file_references import id_in, reference_to
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.ports import Files, ImageData
from chatkit_postgres.store import DatabaseStore

logger = get_logger(__name__)

MAX_IMAGES = 100
"""Images of one answer, including the previews of unfinished ones."""


class OwnFiles(Files):
    def __init__(
        self, store: DatabaseStore, storage: Storage, intake: Intake, limits: FileLimits, context: RequestContext
    ) -> None:
        self.text_characters = limits.text_characters
        self.max_images = limits.max_images
        self._store = store
        self._storage = storage
        self._intake = intake
        self._limits = limits
        self._context = context
        # Not a set, which takes 200 bytes while it is empty.
        self._made: frozenset[str] = frozenset()

    async def text(self, attachment_id: str, max_characters: int) -> str | None:
        def ending(content_type: str) -> str | None:
            return "" if kinds.is_text(content_type) else TEXT if content_type == kinds.PDF else None

        # At most four bytes for each character, and a byte-order mark.
        data = await self._read(attachment_id, ending, 4 * max_characters + 4)
        if data is None:
            return None
        return data.decode(kinds.encoding_of(data), errors="ignore")[:max_characters]

    async def image(self, attachment_id: str) -> ImageData | None:
        def ending(content_type: str) -> str | None:
            return PREVIEW if kinds.is_image(content_type) else None

        data = await self._read(attachment_id, ending, MAX_PREVIEW_BYTES)
        return ImageData(data, content_type_of(data)) if data is not None else None

    async def store_image(self, data: bytes, name: str) -> str:
        if len(self._made) >= MAX_IMAGES:
            raise AnswerTooLong
        if len(data) > self._limits.max_bytes:
            raise FileTooLarge
        # No declared type: the intake detects the real one.
        upload = Upload(io.BytesIO(data), len(data))
        attachment = await self._intake.take_new(
            new_attachment(name, "image/png"), upload, self._context, is_generated=True
        )
        self._made |= {attachment.id}
        if self._context.session is not None:
            self._context.session.made_attachments.add(attachment.id)
        return reference_to(attachment.id)

    async def delete_image(self, reference: str) -> None:
        attachment_id = id_in(reference)
        # An assistant may delete its own images only, not the files that the user sent.
        if attachment_id is not None and attachment_id in self._made:
            await self._store.delete_attachment(attachment_id, self._context)

    async def _read(self, attachment_id: str, ending_of: Callable[[str], str | None], max_bytes: int) -> bytes | None:
        try:
            stored = await self._store.attachments.load_file(attachment_id, self._context)
            if stored.state != "ready" or (ending := ending_of(str(stored.content_type))) is None:
                return None
            return await self._storage.read(f"{stored.storage_key}/{stored.sha256}{ending}", max_bytes)
        except NotFound:
            logger.warning("file_not_read", attachment_id=attachment_id)
            return None
