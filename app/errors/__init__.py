"""The error tree: each class has a status, a code, and a sentence a user may read.

Every error is one of the SDK's stream errors as well, so the same refusal is an HTTP answer before the first
event of a stream and an ``error`` event with a truthful ``allow_retry`` after it.
"""

from app.errors.assistants import (
    AnswerStopped,
    AnswerTooLong,
    AssistantRefused,
    ContentRefused,
    ContextTooLong,
    InputGuardrailTripped,
    ModelBusy,
    ModelMisconfigured,
    ModelQuotaUsedUp,
    ModelUnavailable,
    OutputGuardrailTripped,
    ToolGuardrailTripped,
    TranscriptionFailed,
    TurnTimedOut,
)
from app.errors.base import (
    ChatError,
    InternalError,
)
from app.errors.requests import (
    AlreadyUploaded,
    AttachmentUnavailable,
    BadRequest,
    Conflict,
    FileRefused,
    FileTooLarge,
    Forbidden,
    ForeignOrigin,
    HeadersTooLarge,
    KeyReused,
    KeyTaken,
    LinkExpired,
    MethodNotAllowed,
    NotFound,
    NothingPending,
    PayloadTooLarge,
    RequestTimedOut,
    Superseded,
    ThreadClosed,
    ThreadLocked,
    ThreadNotActive,
    TooManyAttachments,
    TooManyRequests,
    TooManyTurns,
    Unauthorized,
    Unprocessable,
    UnsupportedMediaType,
    UserDisabled,
)
from app.errors.services import (
    DatabaseUnavailable,
    Draining,
    Interrupted,
    KeysUnavailable,
    NotSupported,
    StorageUnavailable,
    Unavailable,
)

__all__ = [
    "AlreadyUploaded",
    "AnswerStopped",
    "AnswerTooLong",
    "AssistantRefused",
    "AttachmentUnavailable",
    "BadRequest",
    "ChatError",
    "Conflict",
    "ContentRefused",
    "ContextTooLong",
    "DatabaseUnavailable",
    "Draining",
    "FileRefused",
    "FileTooLarge",
    "Forbidden",
    "ForeignOrigin",
    "HeadersTooLarge",
    "InputGuardrailTripped",
    "InternalError",
    "Interrupted",
    "KeyReused",
    "KeyTaken",
    "KeysUnavailable",
    "LinkExpired",
    "MethodNotAllowed",
    "ModelBusy",
    "ModelMisconfigured",
    "ModelQuotaUsedUp",
    "ModelUnavailable",
    "NotFound",
    "NotSupported",
    "NothingPending",
    "OutputGuardrailTripped",
    "PayloadTooLarge",
    "RequestTimedOut",
    "StorageUnavailable",
    "Superseded",
    "ThreadClosed",
    "ThreadLocked",
    "ThreadNotActive",
    "TooManyAttachments",
    "TooManyRequests",
    "TooManyTurns",
    "ToolGuardrailTripped",
    "TranscriptionFailed",
    "TurnTimedOut",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMediaType",
    "UserDisabled",
    "error_of",
]


def error_of(code: str | None) -> ChatError:
    """The error that a ledger remembers by its code; for an assistant's own, the general one."""
    kinds = [ChatError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return next((kind() for kind in kinds if kind.code == code), InternalError())
