"""Files in and out of a conversation: whose they are, what they are, where their bytes lie."""

from app.attachments.attachment_store import Attachments

__all__ = ["Attachments"]
