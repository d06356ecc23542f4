"""The metadata of attachments. A deleted one is marked; a job removes its bytes, then its row."""

from typing import Any

from chatkit.types import Attachment

from app.db import Database
from app.errors import NotFound
from app.store import rows
from app.store.ids import session_uuid
from app.store.scope import owner_of
from app.store.sql import attachments as sql


class AttachmentRows:
    database: Database

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        """Insert or replace. Raises NotFound if it was deleted: a deleted id stays deleted."""
        saved = await self.database.run(
            owner_of(context),
            sql.SAVE_ATTACHMENT,
            attachment_id=rows.storable(attachment.id),
            session=session_uuid(attachment.thread_id) if attachment.thread_id else None,
            attachment=rows.storable_json(attachment.model_dump_json()),
        )
        if not saved:
            raise NotFound

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        """Raises NotFound if it is absent, deleted, or somebody else's."""
        found = await self.database.run(
            owner_of(context), sql.LOAD_ATTACHMENT, attachment_id=rows.storable(attachment_id)
        )
        if not found:
            raise NotFound
        return rows.load_attachment(found[0]["attachment"])

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        """Mark it deleted. Raises NotFound if there is none."""
        deleted = await self.database.run(
            owner_of(context), sql.DELETE_ATTACHMENT, attachment_id=rows.storable(attachment_id)
        )
        if not deleted:
            raise NotFound
