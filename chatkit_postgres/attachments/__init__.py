"""Files in and out of a conversation: whose they are, what they are, where their bytes lie."""

from chatkit_postgres.attachments.attachment_store import Attachments

__all__ = ["Attachments"]
