"""Converts thread items, attachments and threads to rows and back, without loss."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, assert_never
from uuid import UUID

from chatkit.types import (
    AssistantMessageItem,
    Attachment,
    ClientToolCallItem,
    EndOfTurnItem,
    GeneratedImageItem,
    HiddenContextItem,
    SDKHiddenContextItem,
    StructuredInputItem,
    TaskItem,
    ThreadItem,
    ThreadMetadata,
    ThreadStatus,
    UserMessageItem,
    WidgetItem,
    WorkflowItem,
)
from pydantic import TypeAdapter, ValidationError

from chatkit_postgres.db import Row
from chatkit_postgres.store import unreadable
from chatkit_postgres.store.ids import message_uuid
from chatkit_postgres.text import clean_json, plain_fields

SenderType = Literal["user", "assistant", "tool", "system"]

_items: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
_attachments: TypeAdapter[Attachment] = TypeAdapter(Attachment)
_statuses: TypeAdapter[ThreadStatus] = TypeAdapter(ThreadStatus)
_json: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """The columns of ``chat_messages`` that come from the item itself."""

    item_id: str
    item_type: str
    sender_type: SenderType
    content: str
    item: str

    @property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.item.encode(), digest_size=16).digest()


def item_row(item: ThreadItem) -> ItemRow:
    return ItemRow(
        item_id=item.id,
        item_type=item.type,
        sender_type=_sender_type(item),
        content=storable(plain_text(item)),
        item=storable_json(_dump(item)),
    )


def row_document(row: ItemRow, session_id: UUID, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "message_id": str(message_uuid(session_id, row.item_id)),
        "item_id": row.item_id,
        "sender_type": row.sender_type,
        "item_type": row.item_type,
        "content": row.content,
        "item": _json.validate_json(row.item),
    }


def load_item(row: Row, thread_id: str) -> ThreadItem:
    """From the columns ``item_id, item``."""
    try:
        return _items.validate_json(row["item"])
    except ValidationError:
        return unreadable.item_for(row["item"], row["item_id"], thread_id)


def load_attachment(row: Row) -> Attachment:
    """From the columns ``attachment_id, attachment``."""
    try:
        return _attachments.validate_json(row["attachment"])
    except ValidationError:
        return unreadable.attachment_for(row["attachment_id"])


def load_thread(row: Row) -> ThreadMetadata:
    """A fresh ThreadMetadata from the columns ``thread_id, title, status, domains, metadata, created_at``."""
    return ThreadMetadata(
        id=row["thread_id"],
        title=row["title"],
        created_at=row["created_at"],
        status=_status(row),
        allowed_image_domains=_domains(row["domains"]),
        metadata=unreadable.object_in(row["metadata"], row["thread_id"]),
    )


def _status(row: Row) -> ThreadStatus:
    try:
        return _statuses.validate_json(row["status"])
    except ValidationError:
        return unreadable.status_for(row["thread_id"])


def _domains(text: str | None) -> list[str] | None:
    domains = json.loads(text) if text is not None else None
    return [domain for domain in domains if isinstance(domain, str)] if isinstance(domains, list) else None


def thread_columns(thread: ThreadMetadata) -> dict[str, str | None]:
    domains = thread.allowed_image_domains
    return {
        "title": storable(thread.title) if thread.title is not None else None,
        "status": storable_json(thread.status.model_dump_json()),
        "domains": storable_json(dump_json(domains)) if domains is not None else None,
        "metadata": storable_json(dump_json(thread.metadata)),
    }


def dump_json(value: Any) -> str:
    return _json.dump_json(value).decode()


def storable(text: str) -> str:
    """PostgreSQL's text cannot hold NUL."""
    return text.replace("\x00", "\ufffd")


def storable_json(text: str) -> str:
    """PostgreSQL's jsonb cannot hold NUL either."""
    if "\\u0000" not in text:
        return text
    return dump_json(clean_json(_json.validate_json(text)))


def _dump(item: ThreadItem) -> str:
    # The SDK's widgets omit every null when they are serialised, also in an action's payload and in fields that may be
    # null but not absent; such a widget would not be loaded as it was saved.
    return dump_json(plain_fields(item)) if isinstance(item, WidgetItem) else item.model_dump_json()


def _sender_type(item: ThreadItem) -> SenderType:
    match item:
        case UserMessageItem():
            return "user"
        case ClientToolCallItem():
            return "tool"
        case HiddenContextItem() | SDKHiddenContextItem() | EndOfTurnItem():
            return "system"
        case _:
            return "assistant"


def plain_text(item: ThreadItem) -> str:  # noqa: PLR0911 - one line for each of eleven types
    match item:
        case UserMessageItem():
            return "".join(part.text for part in item.content)
        case AssistantMessageItem():
            return "\n".join(part.text for part in item.content)
        case ClientToolCallItem():
            return item.name
        case WidgetItem():
            return item.copy_text or ""
        case StructuredInputItem():
            return "\n".join(
                text
                for asked in item.inputs
                for text in (asked.question, *(asked.answer.values if asked.answer is not None else ()))
            )
        case WorkflowItem():
            return "\n".join(filter(None, (getattr(task, "title", None) for task in item.workflow.tasks)))
        case TaskItem():
            return getattr(item.task, "title", None) or ""
        case GeneratedImageItem() | HiddenContextItem() | SDKHiddenContextItem() | EndOfTurnItem():
            return ""
        case _:
            assert_never(item)
