"""What the OpenAPI document says of each route."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chatkit.types import (
    ChatKitReq,
    FileAttachment,
    ImageAttachment,
    Page,
    SyncCustomActionResponse,
    Thread,
    ThreadItem,
    ThreadStreamEvent,
    TranscriptionResult,
)

from chatkit_postgres.api import schemas
from chatkit_postgres.api.usage import DEFAULT_DAYS, MAX_DAYS
from chatkit_postgres.store.cursors import DEFAULT_ROWS, MAX_ROWS

JSON, EVENTS, BYTES = "application/json", "text/event-stream", "application/octet-stream"
EVENTS_FOLLOW = "A stream of server-sent events: the data of each is a ThreadStreamEvent; comments keep it alive."

Kind = Any
"""A model, or a union of models."""


@dataclass(frozen=True)
class Parameter:
    name: str
    schema: Mapping[str, Any]
    description: str = ""
    place: Literal["query", "header"] = "query"
    is_required: bool = False


@dataclass(frozen=True)
class Described:
    summary: str
    answers: Mapping[str, Kind] = field(default_factory=dict)
    """By content type; None: bytes or text."""
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    bodies: Mapping[str, Kind] = field(default_factory=dict)
    has_token: bool = True
    errors: tuple[int, ...] = ()
    """Statuses beside those of every request with a token."""
    status: int = 200
    others: Mapping[int, str] = field(default_factory=dict)
    """Further statuses without a body."""
    also: Mapping[int, Kind] = field(default_factory=dict)
    """Further statuses with a body of JSON."""


def _whole(name: str, maximum: int, default: int) -> Parameter:
    return Parameter(name, {"type": "integer", "minimum": 1, "maximum": maximum, "default": default})


def _order(default: str) -> Parameter:
    return Parameter("order", {"type": "string", "enum": ["asc", "desc"], "default": default})


AFTER = Parameter("after", {"type": "string"}, "of the page before")
KEY = Parameter("key", {"type": "string"}, "of the signed URL", is_required=True)
ON_DISCONNECT = Parameter(
    "Chat-On-Disconnect",
    {"type": "string", "enum": ["finish", "stop"]},
    "what becomes of the turn when its reader leaves",
    place="header",
)
IDEMPOTENCY = Parameter(
    "Idempotency-Key", {"type": "string", "maxLength": 255}, "of a request that may be repeated", place="header"
)
ATTACHMENT = FileAttachment | ImageAttachment
DESCRIPTION = schemas.FileDescription | schemas.ImageDescription
LIMIT = _whole("limit", MAX_ROWS, DEFAULT_ROWS)
ANSWERS = Thread | Page[Thread] | Page[ThreadItem] | ATTACHMENT | SyncCustomActionResponse | TranscriptionResult
SIGNED = (404, 410, 403, 503)

UPLOAD = Described(
    "Upload the bytes of a file that was announced",
    {JSON: ATTACHMENT},
    parameters=(KEY,),
    bodies={BYTES: None, "multipart/form-data": None},
    has_token=False,
    errors=(400, 408, 409, 413, 415, 422, 429, *SIGNED),
)

ROUTES: Mapping[tuple[str, str], Described] = {
    ("POST", "/api/chatkit"): Described(
        "Every operation of ChatKit's protocol",
        {JSON: ANSWERS, EVENTS: ThreadStreamEvent},
        f"An operation that makes an answer is answered by a stream. {EVENTS_FOLLOW}",
        parameters=(IDEMPOTENCY, ON_DISCONNECT),
        bodies={JSON: ChatKitReq},
        errors=(400, 404, 408, 409, 413, 415, 501),
    ),
    ("GET", "/api/threads/{thread_id}/live"): Described(
        "Follow the running turn of a thread",
        {EVENTS: ThreadStreamEvent},
        f"What the turn has made so far, then its events to the end. {EVENTS_FOLLOW}",
        others={204: "No turn is running."},
        errors=(404,),
    ),
    ("POST", "/api/threads/{thread_id}/stop"): Described(
        "Stop the running turn of a thread; its text is kept", {JSON: schemas.Stopped}, errors=(404,)
    ),
    ("GET", "/api/threads/waiting"): Described(
        "The threads in which a question waits for the user", {JSON: schemas.ThreadsSince}
    ),
    ("GET", "/api/threads/running"): Described("The threads in which a turn is running", {JSON: schemas.ThreadsSince}),
    ("GET", "/api/search"): Described(
        "Messages and titles with the words of a query",
        {JSON: schemas.SearchPage},
        parameters=(
            Parameter("q", {"type": "string", "minLength": 1}, 'words, "a phrase", -without', is_required=True),
            LIMIT,
            AFTER,
        ),
        errors=(404,),
    ),
    ("GET", "/api/client-config"): Described(
        "What the server allows, in the shape of ChatKit's options", {JSON: schemas.ClientConfig}
    ),
    ("GET", "/api/usage"): Described(
        "Turns and tokens of the user, by day",
        {JSON: schemas.UsageReport},
        parameters=(_whole("days", MAX_DAYS, DEFAULT_DAYS),),
    ),
    ("GET", "/api/export"): Described(
        "Everything of the user, as a ZIP file", {"application/zip": None}, errors=(404,)
    ),
    ("POST", "/api/attachments"): Described(
        "Upload a file",
        {JSON: ATTACHMENT},
        bodies={"multipart/form-data": None},
        errors=(400, 408, 413, 415, 501),
    ),
    ("GET", "/api/attachments/{attachment_id}"): Described("A file's description", {JSON: DESCRIPTION}, errors=(404,)),
    ("PUT", "/api/attachments/{attachment_id}/content"): UPLOAD,
    ("POST", "/api/attachments/{attachment_id}/content"): UPLOAD,
    ("GET", "/api/attachments/{attachment_id}/content"): Described(
        "The bytes of a file",
        {BYTES: None},
        parameters=(KEY,),
        has_token=False,
        others={307: "The bytes are at a signed URL of the bucket."},
        errors=SIGNED,
    ),
    ("GET", "/api/attachments/{attachment_id}/preview"): Described(
        "A smaller picture of an image", {"image/webp": None}, parameters=(KEY,), has_token=False, errors=SIGNED
    ),
    ("GET", "/api/staff/users/{user_id}/threads"): Described(
        "Threads of a user, for staff; an entry of the audit log",
        {JSON: Page[Thread]},
        parameters=(LIMIT, _order("desc"), AFTER),
        errors=(404,),
    ),
    ("GET", "/api/staff/users/{user_id}/threads/{thread_id}"): Described(
        "A thread of a user with its first items, for staff; an entry of the audit log", {JSON: Thread}, errors=(404,)
    ),
    ("GET", "/api/staff/users/{user_id}/threads/{thread_id}/items"): Described(
        "Items of a thread of a user, for staff; an entry of the audit log",
        {JSON: Page[ThreadItem]},
        parameters=(LIMIT, _order("asc"), AFTER),
        errors=(404,),
    ),
    ("GET", "/health/live"): Described("Whether the process lives", {JSON: schemas.Alive}, has_token=False),
    ("GET", "/health/ready"): Described(
        "Whether the process takes requests",
        {JSON: schemas.Readiness},
        has_token=False,
        also={503: schemas.Readiness},
    ),
    ("GET", "/metrics"): Described("Numbers for Prometheus", {"text/plain": None}, has_token=False),
}
