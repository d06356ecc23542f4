"""Interfaces that a lower room uses and a higher one implements."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from chatkit.types import ThreadStreamEvent

Events = AsyncGenerator[ThreadStreamEvent, None]
"""What an assistant answers with, and what a turn sends."""


@dataclass(frozen=True, slots=True)
class ImageData:
    """An image as bytes: JPEG, PNG, GIF or WebP."""

    data: bytes
    content_type: str


class Files(ABC):
    """The attachments of one user, read and stored with that user's rights."""

    text_characters: int
    """Maximum characters of attached texts in one model call."""
    max_images: int
    """Maximum number of images in one model call."""

    @abstractmethod
    async def text(self, attachment_id: str, max_characters: int) -> str | None:
        """The text of an attached text, Markdown, CSV, JSON or PDF file, cut; None for any other file, or if it is
        deleted."""
        ...

    @abstractmethod
    async def image(self, attachment_id: str) -> ImageData | None:
        """An attached image, scaled down for a model; None for any other file, or if it is deleted."""
        ...

    @abstractmethod
    async def store_image(self, data: bytes, name: str) -> str:
        """Store an image that was generated for the user. Returns the reference that an item holds as its URL."""
        ...

    @abstractmethod
    async def delete_image(self, reference: str) -> None:
        """Delete an image that ``store_image`` stored for this answer; nothing for any other."""
        ...
