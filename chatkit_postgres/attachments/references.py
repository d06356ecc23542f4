"""Items store a reference in place of a file's URL; the reference becomes a signed URL when the item is sent."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from chatkit.types import (
    Attachment,
    GeneratedImage,
    GeneratedImageItem,
    GeneratedImageUpdated,
    ImageAttachment,
    Page,
    SyncCustomActionResponse,
    Thread,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    UserMessageItem,
)
from pydantic import AnyUrl, BaseModel

from chatkit_postgres.file_references import id_in

M = TypeVar("M", bound=BaseModel)
Link = Callable[[str, Literal["content", "preview"]], str]
"""Makes a signed URL of an attachment's id and a purpose."""


def with_links(model: M, link: Link) -> M:
    """Replace references with signed URLs in an event, a page of items, a thread or the response to an action."""
    if isinstance(model, ThreadItemUpdatedEvent) and not isinstance(model.update, GeneratedImageUpdated):
        # Most of these are text deltas.
        return model
    changes = _changes(model, link)
    return model.model_copy(update=changes) if changes else model


def _changes(model: Any, link: Link) -> dict[str, Any]:
    match model:
        case ThreadItemAddedEvent(item=item) | ThreadItemDoneEvent(item=item) | ThreadItemReplacedEvent(item=item):
            return {"item": _item(item, link)}
        case ThreadItemUpdatedEvent(update=GeneratedImageUpdated(image=image) as update):
            return {"update": update.model_copy(update={"image": _image(image, link)})}
        case Page(data=data):
            return {"data": [_item(item, link) for item in data]}
        case Thread(items=items):
            return {"items": with_links(items, link)}
        case SyncCustomActionResponse(updated_item=item) if item is not None:
            return {"updated_item": _item(item, link)}
        case _:
            return {}


def attachment_with_link(attachment: Attachment, link: Link) -> Attachment:
    if isinstance(attachment, ImageAttachment) and (attachment_id := id_in(str(attachment.preview_url))):
        return attachment.model_copy(update={"preview_url": AnyUrl(link(attachment_id, "preview"))})
    return attachment


def _item(item: Any, link: Link) -> ThreadItem:
    match item:
        case UserMessageItem(attachments=attachments) if attachments:
            linked = [attachment_with_link(attachment, link) for attachment in attachments]
            return item.model_copy(update={"attachments": linked})
        case GeneratedImageItem(image=image) if image is not None:
            return item.model_copy(update={"image": _image(image, link)})
        case _:
            return item  # type: ignore[no-any-return]


def _image(image: GeneratedImage, link: Link) -> GeneratedImage:
    attachment_id = id_in(image.url)
    return image.model_copy(update={"url": link(attachment_id, "content")}) if attachment_id else image
