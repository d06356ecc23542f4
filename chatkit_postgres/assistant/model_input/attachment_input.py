"""Converts attached files to model input, the newest first; files beyond the budget are only named."""

import asyncio
import base64
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from chatkit.types import Attachment, GeneratedImageItem, ThreadItem, UserMessageItem
from openai.types.responses import ResponseInputImageParam, ResponseInputTextParam

from chatkit_postgres.attachments import kinds
from chatkit_postgres.errors import StorageUnavailable
from chatkit_postgres.file_references import id_in
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.ports import Files

logger = get_logger(__name__)

Part = ResponseInputTextParam | ResponseInputImageParam

OLDER_FILES_SECONDS = 10
FILE_BEGINS = "<Attachment "
CUT = "[The file is longer; it is cut here.]"


async def contents_of(
    items: Sequence[ThreadItem], files: Files, *, without_images: AbstractSet[str] = frozenset()
) -> dict[str, Part]:
    """Model input by attachment id. An attachment without input is only named, as are the images of the messages in
    ``without_images``.

    Raises StorageUnavailable if the files of the newest message cannot be read; unreadable older files are only named.
    """
    newest = next((item for item in reversed(items) if isinstance(item, UserMessageItem)), None)
    budget = _Budget(files, without_images)
    try:
        if newest is not None:
            await budget.spend_on(newest)
        async with asyncio.timeout(OLDER_FILES_SECONDS):
            for item in reversed(items):
                if item is not newest:
                    await budget.spend_on(item)
    except TimeoutError:
        logger.warning("older_files_not_read", reason="timeout")
    except StorageUnavailable:
        if newest is not None and newest.id not in budget.read:
            raise
        logger.warning("older_files_not_read", reason="storage")
    return budget.parts


class _Budget:
    """The remaining budget of text and images, and the input made so far."""

    def __init__(self, files: Files, without_images: AbstractSet[str]) -> None:
        self.parts: dict[str, Part] = {}
        self.read: set[str] = set()
        """Ids of items whose files have been read."""
        self._files = files
        self._without_images = without_images
        self._characters = files.text_characters
        self._images = files.max_images

    async def spend_on(self, item: ThreadItem) -> None:
        for attachment_id, name, content_type in reversed(_files_of(item)):
            if kinds.is_image(content_type):
                if (
                    self._images > 0
                    and item.id not in self._without_images
                    and (image := await self._files.image(attachment_id)) is not None
                ):
                    self._images -= 1
                    self.parts[attachment_id] = _image(image.data, image.content_type)
            elif (
                kinds.has_text(content_type)
                and self._characters > 0
                and (text := await self._files.text(attachment_id, self._characters + 1))
            ):
                self.parts[attachment_id] = _quoted(name, content_type, text, self._characters)
                self._characters -= min(self._characters, len(text))
        self.read.add(item.id)


def named(attachment: Attachment) -> ResponseInputTextParam:
    """A note in place of a file that a model cannot read, or that exceeds the budget."""
    size = (attachment.metadata or {}).get("size")
    about = ", ".join(filter(None, (attachment.mime_type, f"{size} bytes" if size is not None else "")))
    return _text(f"The user attached a file: {json.dumps(attachment.name, ensure_ascii=False)} ({about}).")


def _files_of(item: ThreadItem) -> list[tuple[str, str, str]]:
    match item:
        case UserMessageItem(attachments=attachments):
            return [(attachment.id, attachment.name, attachment.mime_type) for attachment in attachments]
        case GeneratedImageItem(image=image) if image is not None and (attachment_id := id_in(image.url)):
            return [(attachment_id, "", "image/png")]
        case _:
            return []


def _quoted(name: str, content_type: str, text: str, max_characters: int) -> ResponseInputTextParam:
    """Mark the text as a file of the user, so that models do not take it for instructions."""
    shown = text if len(text) <= max_characters else f"{text[:max_characters]}\n{CUT}"
    title = json.dumps(name, ensure_ascii=False)
    return _text(f"{FILE_BEGINS}name={title} type={json.dumps(content_type)}>\n{shown}\n</Attachment>")


def _image(data: bytes, content_type: str) -> ResponseInputImageParam:
    url = f"data:{content_type};base64,{base64.b64encode(data).decode()}"
    return ResponseInputImageParam(type="input_image", detail="auto", image_url=url)


def _text(text: str) -> ResponseInputTextParam:
    return ResponseInputTextParam(type="input_text", text=text)
