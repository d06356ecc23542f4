"""Attached files as model input: the newest first, until the budget is used up; the rest by name."""

import asyncio
import base64
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from chatkit.types import Attachment, GeneratedImageItem, ThreadItem, UserMessageItem
from openai.types.responses import ResponseInputImageParam, ResponseInputTextParam

from chatkit_postgres.attachments import kinds
from chatkit_postgres.context import Files
from chatkit_postgres.errors import StorageUnavailable
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store.attachments import id_in

logger = get_logger(__name__)

Part = ResponseInputTextParam | ResponseInputImageParam

OLDER_FILES_SECONDS = 10
FILE_BEGINS = "<Attachment "
CUT = "[The file is longer; it is cut here.]"


async def contents_of(
    items: Sequence[ThreadItem], files: Files, *, without_pictures: AbstractSet[str] = frozenset()
) -> dict[str, Part]:
    """By attachment id, what a model gets to see; an attachment that is not there is to be named only, as are the
    pictures of some messages.

    Raises StorageUnavailable if what the newest message brings cannot be read; older files are then named.
    """
    newest = next((item for item in reversed(items) if isinstance(item, UserMessageItem)), None)
    budget = _Budget(files, without_pictures)
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
    """What is left of what may be shown, and what is shown."""

    def __init__(self, files: Files, without_pictures: AbstractSet[str]) -> None:
        self.parts: dict[str, Part] = {}
        self.read: set[str] = set()
        """Ids of items whose files were looked at."""
        self._files = files
        self._without_pictures = without_pictures
        self._characters = files.text_characters
        self._pictures = files.max_images

    async def spend_on(self, item: ThreadItem) -> None:
        for attachment_id, name, content_type in reversed(_brought(item)):
            if kinds.is_picture(content_type):
                if (
                    self._pictures > 0
                    and item.id not in self._without_pictures
                    and (picture := await self._files.image(attachment_id)) is not None
                ):
                    self._pictures -= 1
                    self.parts[attachment_id] = _image(picture.data, picture.content_type)
            elif (
                kinds.has_text(content_type)
                and self._characters > 0
                and (text := await self._files.text(attachment_id, self._characters + 1))
            ):
                self.parts[attachment_id] = _quoted(name, content_type, text, self._characters)
                self._characters -= min(self._characters, len(text))
        self.read.add(item.id)


def named(attachment: Attachment) -> ResponseInputTextParam:
    """What is said of a file that a model cannot read, or that there is no room for."""
    size = (attachment.metadata or {}).get("size")
    about = ", ".join(filter(None, (attachment.mime_type, f"{size} bytes" if size is not None else "")))
    return _text(f"The user attached a file: {json.dumps(attachment.name, ensure_ascii=False)} ({about}).")


def _brought(item: ThreadItem) -> list[tuple[str, str, str]]:
    match item:
        case UserMessageItem(attachments=attachments):
            return [(attachment.id, attachment.name, attachment.mime_type) for attachment in attachments]
        case GeneratedImageItem(image=image) if image is not None and (attachment_id := id_in(image.url)):
            return [(attachment_id, "", "image/png")]
        case _:
            return []


def _quoted(name: str, content_type: str, text: str, max_characters: int) -> ResponseInputTextParam:
    """As what it is: something the user sent, and no instruction."""
    shown = text if len(text) <= max_characters else f"{text[:max_characters]}\n{CUT}"
    title = json.dumps(name, ensure_ascii=False)
    return _text(f"{FILE_BEGINS}name={title} type={json.dumps(content_type)}>\n{shown}\n</Attachment>")


def _image(data: bytes, content_type: str) -> ResponseInputImageParam:
    url = f"data:{content_type};base64,{base64.b64encode(data).decode()}"
    return ResponseInputImageParam(type="input_image", detail="auto", image_url=url)


def _text(text: str) -> ResponseInputTextParam:
    return ResponseInputTextParam(type="input_text", text=text)
