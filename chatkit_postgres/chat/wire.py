"""Serialises models as the ChatKit protocol sends them."""

from chatkit.types import HiddenContextItem, Page, SDKHiddenContextItem, Thread, ThreadItem, ThreadMetadata
from pydantic import BaseModel


def to_json(model: BaseModel) -> bytes:
    """JSON without nulls, and without the metadata that belongs to the server."""
    return model.model_dump_json(by_alias=True, exclude_none=True, context={"exclude_metadata": True}).encode()


def thread_response(thread: ThreadMetadata, items: Page[ThreadItem] | None = None) -> Thread:
    """A thread as clients receive it: without the server's metadata, with a page of items."""
    return Thread(
        id=thread.id,
        title=thread.title,
        created_at=thread.created_at,
        items=items if items is not None else Page(),
        status=thread.status,
        allowed_image_domains=thread.allowed_image_domains,
    )


def is_hidden(item: object) -> bool:
    """Whether an item is context for the model that no client receives."""
    return isinstance(item, HiddenContextItem | SDKHiddenContextItem)
