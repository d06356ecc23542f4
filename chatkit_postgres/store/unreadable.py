"""Stand-ins for rows that cannot be read: a type of a newer version, or a broken value.

Only that item is lost, not its page. The row is never changed, for a version that can read it.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chatkit import types
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    Attachment,
    FileAttachment,
    HiddenContextItem,
    InferenceOptions,
    LockedStatus,
    ThreadItem,
    ThreadStatus,
    UserMessageItem,
    UserMessageTextContent,
)

from chatkit_postgres.observability.logs import get_logger

SENTENCE = "[This part of the conversation cannot be shown.]"
LOCKED = "This conversation was made by a newer version of the server."
MAX_LOGGED = 10_000


class UnreadableAnswer(AssistantMessageItem):
    pass


class UnreadableQuestion(UserMessageItem):
    pass


class UnreadableContext(HiddenContextItem):
    pass


# Its annotations refer to a union that the SDK defines after the class.
UnreadableQuestion.model_rebuild(_types_namespace=vars(types))
STAND_INS = (UnreadableAnswer, UnreadableQuestion, UnreadableContext)
"""Items of these types are never written."""

logger = get_logger(__name__)
_logged: set[tuple[str, str]] = set()


def item_for(text: str, item_id: str, thread_id: str) -> ThreadItem:
    """Hidden if the item was; otherwise a message with the text that is found in it."""
    document = _object(text)
    kind = document.get("type")
    _log("item", item_id, kind=kind if isinstance(kind, str) else None)
    common: dict[str, Any] = {"id": item_id, "thread_id": thread_id, "created_at": _time(document.get("created_at"))}
    text_found = _text_in(document.get("content")) or SENTENCE
    match kind:
        case "hidden_context_item" | "sdk_hidden_context":
            return UnreadableContext(content=document.get("content"), **common)
        case "user_message":
            content = UserMessageTextContent(text=text_found)
            return UnreadableQuestion(content=[content], attachments=[], inference_options=InferenceOptions(), **common)
        case _:
            return UnreadableAnswer(content=[AssistantMessageContent(text=text_found)], **common)


def attachment_for(attachment_id: str) -> Attachment:
    _log("attachment", attachment_id)
    return FileAttachment(id=attachment_id, name="file", mime_type="application/octet-stream")


def status_for(thread_id: str) -> ThreadStatus:
    """Locked, because statements change a thread only if they know its status."""
    _log("thread", thread_id)
    return LockedStatus(reason=LOCKED)


def object_in(text: str, thread_id: str) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    found = json.loads(text)
    if isinstance(found, dict):
        return found
    _log("thread", thread_id)
    return {}


def _object(text: str) -> Mapping[str, Any]:
    document = json.loads(text)
    return document if isinstance(document, dict) else {}


def _time(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return datetime.now()  # noqa: DTZ005 - as the SDK's own


def _text_in(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(text for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str))


def _log(what: str, row_id: str, **more: str | None) -> None:
    """Once for each row."""
    if (what, row_id) not in _logged and len(_logged) < MAX_LOGGED:
        _logged.add((what, row_id))
        logger.warning("row_unreadable", what=what, id=row_id, **more)
