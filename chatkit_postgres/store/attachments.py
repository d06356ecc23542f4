"""The rows of attachments. A deleted one is marked; a job removes its bytes, then its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from chatkit.types import Attachment, GeneratedImageItem, ThreadItem, UserMessageItem

from chatkit_postgres.context import Turn
from chatkit_postgres.db import Database, Row
from chatkit_postgres.errors import NotFound, TooManyAttachments
from chatkit_postgres.store import rows
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.scope import check_active, owner_of, turn_of
from chatkit_postgres.store.sql import attachments as sql
from chatkit_postgres.store.sql.threads import LOAD_THREAD

SCHEME = "attachment://"
"""In stored items, instead of an address: ``attachment://atc_…``. Who tells an item puts a link in its place."""

NO_FILE = "This file does not exist."


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An attachment and what is known of its bytes."""

    attachment: Attachment
    state: Literal["pending", "ready"]
    session_id: UUID | None
    """Of the thread it was sent in."""
    storage_key: str | None
    """Where its objects are; None for one that was saved without bytes."""
    declared_bytes: int | None
    stored_bytes: int | None
    content_type: str | None
    """By content, once it is ready."""
    sha256: str | None
    is_late: bool
    """Whether the time for its upload is over."""


class AttachmentRows:
    database: Database

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        """Insert or replace. Raises NotFound if it was deleted: a deleted id stays deleted.

        Nothing inside a turn: there the statement that saves the message gives its attachments to the thread.
        """
        if turn_of(context) is not None:
            return
        saved = await self.database.run(
            owner_of(context),
            sql.SAVE_ATTACHMENT,
            attachment_id=rows.storable(attachment.id),
            session=session_uuid(attachment.thread_id) if attachment.thread_id else None,
            attachment=rows.storable_json(attachment.model_dump_json()),
        )
        if not saved:
            raise NotFound(NO_FILE)

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        """Raises NotFound if it is absent, deleted, or somebody else's."""
        turn = turn_of(context)
        if turn is not None and attachment_id in turn.attachments:
            return turn.attachments[attachment_id]
        return (await self.load_file(attachment_id, context)).attachment

    async def load_file(self, attachment_id: str, context: Any) -> StoredFile:
        """Raises NotFound if it is absent, deleted, or somebody else's."""
        return (await self.load_files([attachment_id], context))[0]

    async def load_files(self, attachment_ids: Sequence[str], context: Any) -> list[StoredFile]:
        """In the order of the ids. Raises NotFound if one of them is absent, deleted, or somebody else's."""
        wanted = [rows.storable(attachment_id) for attachment_id in attachment_ids]
        found = await self.database.run(owner_of(context), sql.LOAD_ATTACHMENTS, attachments=wanted)
        files = {row["attachment_id"]: _file(row) for row in found}
        if not all(attachment_id in files for attachment_id in wanted):
            raise NotFound(NO_FILE)
        return [files[attachment_id] for attachment_id in wanted]

    async def create_attachment(
        self,
        attachment: Attachment,
        context: Any,
        *,
        storage_key: str,
        declared_bytes: int | None,
        upload_seconds: float,
        max_unsent: int,
    ) -> None:
        """A row for bytes that are still to come. Raises TooManyAttachments."""
        created = await self.database.run(
            owner_of(context),
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

    async def finish_upload(self, attachment: Attachment, context: Any, *, stored_bytes: int, sha256: str) -> None:
        """Its bytes are stored. Raises NotFound if it was deleted meanwhile, or has other bytes already."""
        finished = await self.database.run(
            owner_of(context),
            sql.FINISH_UPLOAD,
            attachment_id=attachment.id,
            attachment=rows.storable_json(attachment.model_dump_json()),
            content_type=attachment.mime_type,
            stored_bytes=stored_bytes,
            sha256=sha256,
        )
        if not finished:
            raise NotFound(NO_FILE)

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        """Mark it deleted, if it is there. Raises ThreadLocked or ThreadClosed if it was sent in a thread that takes no
        changes."""
        deleted = await self.database.run(
            owner_of(context), sql.DELETE_ATTACHMENT, attachment_id=rows.storable(attachment_id)
        )
        if deleted:
            return
        try:
            file = await self.load_file(attachment_id, context)
        except NotFound:
            return
        found = await self.database.run(owner_of(context), LOAD_THREAD, session=file.session_id)
        if found:
            check_active(rows.load_thread(found[0]))


def sent_with(item: ThreadItem, turn: Turn) -> list[str]:
    """The ids of the attachments that an item brings: what a user sends, and what was made for an answer."""
    match item:
        case UserMessageItem(attachments=attachments):
            return [attachment.id for attachment in attachments]
        case GeneratedImageItem(image=image) if image is not None and id_in(image.url) in turn.made_attachments:
            return [image.url.removeprefix(SCHEME)]
        case _:
            return []


def id_in(url: str) -> str | None:
    """The id in a reference to an attachment; None for any other address."""
    return url.removeprefix(SCHEME) if url.startswith(SCHEME) else None


def _file(row: Row) -> StoredFile:
    fields = {name: value for name, value in row.items() if name not in {"attachment_id", "attachment"}}
    return StoredFile(attachment=rows.load_attachment(row), **fields)
