"""Files in conversations: ownership, type checks, renditions and storage."""

from chatkit_postgres.attachments.attachment_store import Attachments

__all__ = ["Attachments"]
