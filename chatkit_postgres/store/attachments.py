"""Reads and writes the rows of attachments. A deleted one is marked; a job removes its bytes, then its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from chatkit.types import Attachment, GeneratedImageItem, ThreadItem, UserMessageItem

from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import NotFound, TooManyAttachments
from chatkit_postgres.file_references import SCHEME, id_in
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import Caller, owner_of, session_of
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.refusals import explain_refusal
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import attachments as sql

NO_FILE = "This file does not exist."


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An attachment and the metadata of its bytes."""

    attachment: Attachment
    state: Literal["pending", "ready"]
    session_id: UUID | None
    """The thread that it was sent in; None before that."""
    storage_key: str | None
    """Prefix of its objects in the storage; None for an attachment that was saved without bytes."""
    declared_bytes: int | None
    stored_bytes: int | None
    content_type: str | None
    """Detected from the content, once it is ready."""
    sha256: str | None
    is_late: bool
    """Whether the time limit of its upload has passed."""


class AttachmentRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, attachment: Attachment, caller: Caller) -> None:
        """Insert or replace. Raises NotFound if it was deleted: a deleted id stays deleted.

        Does nothing inside a turn: there the statement that saves the message assigns its attachments to the thread.
        """
        if session_of(caller) is not None:
            return
        saved = await self._database.run(
            owner_of(caller),
            sql.SAVE_ATTACHMENT,
            attachment_id=rows.storable(attachment.id),
            session=session_uuid(attachment.thread_id) if attachment.thread_id else None,
            attachment=rows.storable_json(attachment.model_dump_json()),
        )
        if not saved:
            raise NotFound(NO_FILE)

    async def load(self, attachment_id: str, caller: Caller) -> Attachment:
        """Raises NotFound if it is absent, deleted, or somebody else's."""
        session = session_of(caller)
        if session is not None and attachment_id in session.attachments:
            return session.attachments[attachment_id]
        return (await self.load_file(attachment_id, caller)).attachment

    async def load_file(self, attachment_id: str, caller: Caller) -> StoredFile:
        """Raises NotFound if it is absent, deleted, or somebody else's."""
        return (await self.load_files([attachment_id], caller))[0]

    async def load_files(self, attachment_ids: Sequence[str], caller: Caller) -> list[StoredFile]:
        """In the order of the ids. Raises NotFound if one of them is absent, deleted, or somebody else's."""
        wanted = [rows.storable(attachment_id) for attachment_id in attachment_ids]
        found = await self._database.run(owner_of(caller), sql.LOAD_ATTACHMENTS, attachments=wanted)
        files = {row["attachment_id"]: _file(row) for row in found}
        if not all(attachment_id in files for attachment_id in wanted):
            raise NotFound(NO_FILE)
        return [files[attachment_id] for attachment_id in wanted]

    async def create(
        self,
        attachment: Attachment,
        caller: Caller,
        *,
        storage_key: str,
        declared_bytes: int | None,
        upload_seconds: float,
        max_unsent: int | None,
    ) -> None:
        """Insert a row before the upload. Raises TooManyAttachments."""
        created = await self._database.run(
            owner_of(caller),
            sql.CREATE_ATTACHMENT,
            attachment_id=attachment.id,
            attachment=rows.storable_json(attachment.model_dump_json()),
            storage_key=storage_key,
            declared_bytes=declared_bytes,
            content_type=attachment.mime_type,
            upload_seconds=upload_seconds,
            max_unsent=max_unsent,
        )
        if not created:
            raise TooManyAttachments

    async def finish_upload(self, attachment: Attachment, caller: Caller, *, stored_bytes: int, sha256: str) -> None:
        """Record that the bytes are stored. Raises NotFound if it is deleted, or has other bytes already."""
        finished = await self._database.run(
            owner_of(caller),
            sql.FINISH_UPLOAD,
            attachment_id=attachment.id,
            attachment=rows.storable_json(attachment.model_dump_json()),
            content_type=attachment.mime_type,
            stored_bytes=stored_bytes,
            sha256=sha256,
        )
        if not finished:
            raise NotFound(NO_FILE)

    async def delete(self, attachment_id: str, caller: Caller) -> None:
        """Mark it as deleted; nothing if it is absent. Raises ThreadLocked or ThreadClosed for an attachment of such a
        thread."""
        deleted = await self._database.run(
            owner_of(caller), sql.DELETE_ATTACHMENT, attachment_id=rows.storable(attachment_id)
        )
        if deleted:
            return
        try:
            file = await self.load_file(attachment_id, caller)
            await explain_refusal(self._database, owner_of(caller), file.session_id)
        except NotFound:
            return


def sent_with(item: ThreadItem, session: WriteSession) -> list[str]:
    """The ids of an item's attachments: those of a user's message, or the image generated for an answer."""
    match item:
        case UserMessageItem(attachments=attachments):
            return [attachment.id for attachment in attachments]
        case GeneratedImageItem(image=image) if image is not None and id_in(image.url) in session.made_attachments:
            return [image.url.removeprefix(SCHEME)]
        case _:
            return []


def _file(row: Row) -> StoredFile:
    fields = {name: value for name, value in row.items() if name not in {"attachment_id", "attachment"}}
    return StoredFile(attachment=rows.load_attachment(row), **fields)
