"""Stores generated images as files of the user, so that no row of a thread holds their bytes."""

from collections.abc import Sequence

from chatkit.types import (
    GeneratedImage,
    GeneratedImageItem,
    GeneratedImageUpdated,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.errors import ChatError, FileRefused
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.ports import Files
from chatkit_postgres.validation import decode_base64

DATA = "data:"

logger = get_logger(__name__)


class StoreImages(Stage):
    """Replaces data URLs by references to stored attachments. Each preview is deleted once the next one was sent."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._shown: dict[str, str] = {}
        """Item id to the reference of the image that was sent last."""

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        return (await _stored(event, self._files),)

    async def sent(self, events: Sequence[ThreadStreamEvent]) -> Sequence[ThreadStreamEvent]:
        for event in events:
            item_id, image = _image_in(event)
            if image is None:
                continue
            before = self._shown.get(item_id)
            self._shown[item_id] = image.url
            if before not in {None, image.url}:
                await _delete(str(before), self._files)
        return ()


def holds_image(item: ThreadItem) -> bool:
    """Whether an item holds the bytes of an image."""
    return isinstance(item, GeneratedImageItem) and item.image is not None and item.image.url.startswith(DATA)


async def _stored(event: ThreadStreamEvent, files: Files) -> ThreadStreamEvent:
    _, image = _image_in(event)
    if image is None or not image.url.startswith(DATA):
        return event
    try:
        stored = image.model_copy(update={"url": await files.store_image(await _decoded(image.url), "image")})
    except FileRefused:
        logger.warning("image_refused")
        stored = None
    match event:
        case ThreadItemUpdatedEvent(update=GeneratedImageUpdated() as update):
            return event.model_copy(update={"update": update.model_copy(update={"image": stored or _nothing(image)})})
        case ThreadItemAddedEvent(item=item) | ThreadItemDoneEvent(item=item) | ThreadItemReplacedEvent(item=item):
            return event.model_copy(update={"item": item.model_copy(update={"image": stored})})
        case _:
            return event


def _image_in(event: ThreadStreamEvent) -> tuple[str, GeneratedImage | None]:
    match event:
        case ThreadItemUpdatedEvent(item_id=item_id, update=GeneratedImageUpdated(image=image)):
            return item_id, image
        case (
            ThreadItemAddedEvent(item=GeneratedImageItem() as item)
            | ThreadItemDoneEvent(item=GeneratedImageItem() as item)
            | ThreadItemReplacedEvent(item=GeneratedImageItem() as item)
        ):
            return item.id, item.image
        case _:
            return "", None


def _nothing(image: GeneratedImage) -> GeneratedImage:
    return image.model_copy(update={"url": ""})


async def _decoded(url: str) -> bytes:
    """The bytes of a data URL (RFC 2397) in base64, whatever it says of their kind."""
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise FileRefused
    try:
        return await decode_base64(data)
    except ValueError:
        raise FileRefused from None


async def _delete(reference: str, files: Files) -> None:
    try:
        await files.delete_image(reference)
    except ChatError as error:
        # The clean-up deletes images that belong to no message after a day.
        logger.warning("image_not_dropped", code=error.code)
