"""The error tree: each class has a status, a code, and a sentence a user may read.

Every error is one of the SDK's stream errors as well, so the same refusal is an HTTP answer before the first
event of a stream and an ``error`` event with a truthful ``allow_retry`` after it.
"""

from typing import ClassVar

from chatkit.errors import CustomStreamError
from chatkit.store import NotFoundError


class ChatError(CustomStreamError):
    """What went wrong, in words a user may read. Details belong in the log, under the request id."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    sentence: ClassVar[str] = "Something went wrong on our side."
    retry: ClassVar[bool] = False
    retry_after_seconds: int | None = None

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or self.sentence, allow_retry=self.retry)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InternalError(ChatError):
    retry = True


class BadRequest(ChatError):
    status = 400
    code = "bad_request"
    sentence = "The request body must be a JSON document."


class Unauthorized(ChatError):
    status = 401
    code = "unauthorized"
    sentence = "Please sign in again."


class Forbidden(ChatError):
    """We know who asks, and refuse."""

    status = 403
    code = "forbidden"
    sentence = "This is not allowed."


class UserDisabled(Forbidden):
    code = "user_disabled"
    sentence = "This account is disabled."


class ForeignOrigin(Forbidden):
    """The token came in a cookie, which a browser also sends for pages of others."""

    code = "foreign_origin"
    sentence = "Requests from this page are not accepted."


class NotFound(ChatError, NotFoundError):
    """Absent, or somebody else's: the answer is the same."""

    status = 404
    code = "not_found"
    sentence = "This conversation or message does not exist."


class MethodNotAllowed(ChatError):
    status = 405
    code = "method_not_allowed"
    sentence = "This address does not take that method."


class RequestTimedOut(ChatError):
    status = 408
    code = "request_timed_out"
    sentence = "The request took too long to arrive."
    retry = True


class Conflict(ChatError):
    status = 409
    code = "conflict"
    sentence = "This was already answered."


class NothingPending(Conflict):
    code = "nothing_pending"
    sentence = "Nothing in this conversation waits for that answer."


class ThreadNotActive(Conflict):
    code = "thread_not_active"
    sentence = "This conversation takes nothing new."


class ThreadLocked(ThreadNotActive):
    code = "thread_locked"
    sentence = "This conversation is locked."


class ThreadClosed(ThreadNotActive):
    code = "thread_closed"
    sentence = "This conversation is closed."


class Superseded(Conflict):
    """The fence refused a write: a newer turn owns the thread."""

    code = "superseded"
    sentence = "A newer message took over this conversation."


class AttachmentUnavailable(Conflict):
    """Not uploaded yet, or sent before."""

    code = "attachment_unavailable"
    sentence = "An attachment of this message is not uploaded yet, or was sent before."


class AlreadyUploaded(Conflict):
    code = "already_uploaded"
    sentence = "This file was uploaded already."


class KeyTaken(Conflict):
    """A turn was already opened under this Idempotency-Key; the caller is given that turn's events instead."""

    code = "idempotency_key_taken"
    sentence = "This request was already made."


class LinkExpired(ChatError):
    """A link that was good once. One that never was is NotFound."""

    status = 410
    code = "link_expired"
    sentence = "This link has expired."


class PayloadTooLarge(ChatError):
    status = 413
    code = "payload_too_large"
    sentence = "The request is too large."


class FileTooLarge(PayloadTooLarge):
    code = "file_too_large"
    sentence = "The file is too large."


class UnsupportedMediaType(ChatError):
    status = 415
    code = "unsupported_media_type"
    sentence = "Content-Type: send application/json."


class FileRefused(UnsupportedMediaType):
    """Its type is not taken, or it is not what it says it is."""

    code = "file_refused"
    sentence = "Files of this type are not accepted."


class HeadersTooLarge(ChatError):
    status = 431
    code = "headers_too_large"
    sentence = "The request's headers are too large."


class Unprocessable(ChatError):
    """JSON, but not a request we can act on. The sentence names the field."""

    status = 422
    code = "invalid_request"
    sentence = "The request is not valid."


class KeyReused(Unprocessable):
    code = "idempotency_key_reused"
    sentence = "Idempotency-Key: this key belongs to another request."


class TooManyRequests(ChatError):
    status = 429
    code = "too_many_requests"
    sentence = "Too many requests. Please wait a moment."
    retry = True
    retry_after_seconds = 10

    def __init__(self, *, retry_after_seconds: int | None = None) -> None:
        super().__init__()
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds


class TooManyTurns(TooManyRequests):
    code = "too_many_turns"
    sentence = "Several answers are being written for you already. Please wait for one of them."


class TooManyAttachments(TooManyRequests):
    code = "too_many_attachments"
    sentence = "Too many files wait to be sent. Please send or remove some first."


class NotSupported(ChatError):
    status = 501
    code = "not_supported"
    sentence = "This server does not offer that."


class TranscriptionFailed(ChatError):
    """The speech model could not be reached, or could make nothing of it."""

    status = 502
    code = "transcription_failed"
    sentence = "This recording could not be understood. Please try again."
    retry = True


class AssistantRefused(ChatError):
    """An assistant's own error that does not invite another try; its sentence is not kept."""

    status = 422
    code = "assistant_refused"
    sentence = "This could not be answered."


class ModelUnavailable(ChatError):
    """The model's server did not answer, broke off, or failed."""

    status = 502
    code = "model_unavailable"
    sentence = "The assistant cannot be reached right now. Please try again."
    retry = True


class ModelBusy(ChatError):
    """The provider's rate limit."""

    status = 503
    code = "model_busy"
    sentence = "The assistant is very busy. Please try again in a moment."
    retry = True


class ModelQuotaUsedUp(ChatError):
    """What was paid for is used up; trying again does not help."""

    status = 503
    code = "model_quota_used_up"
    sentence = "The assistant's usage limit is reached. Please try again later."


class ModelMisconfigured(ChatError):
    """The provider does not know the key or the model, or refuses what we send; the log says what it said."""

    status = 502
    code = "model_misconfigured"
    sentence = "The assistant is not set up correctly. Please tell those who run it."


class ContextTooLong(ChatError):
    status = 422
    code = "context_too_long"
    sentence = "This is too long for the assistant. Please send less, or start a new conversation."


class ContentRefused(ChatError):
    """By the provider's content filter."""

    status = 422
    code = "content_refused"
    sentence = "The assistant may not answer this."


class InputGuardrailTripped(ChatError):
    """By a user's message, which no model sees again unless it is retried and passes."""

    status = 422
    code = "input_guardrail_tripped"
    sentence = "This cannot be answered here."


class OutputGuardrailTripped(ChatError):
    """By an answer, which was taken back."""

    status = 422
    code = "output_guardrail_tripped"
    sentence = "This answer was withdrawn."
    retry = True


class AnswerTooLong(ChatError):
    """The model does not stop. What it said up to the limit is kept."""

    status = 502
    code = "answer_too_long"
    sentence = "The answer became too long and was ended here."


class TurnTimedOut(ChatError):
    status = 504
    code = "turn_timed_out"
    sentence = "The answer took too long. Please try again."
    retry = True


class Unavailable(ChatError):
    status = 503
    code = "unavailable"
    sentence = "The service is busy or restarting. Please try again in a moment."
    retry = True
    retry_after_seconds = 2


class Draining(Unavailable):
    code = "draining"


class Interrupted(Unavailable):
    """The process that ran the turn died or stalled."""

    code = "interrupted"
    sentence = "The answer was interrupted. Please try again."


class KeysUnavailable(Unavailable):
    """No key of the issuer is known yet, or the last ones are too old to be believed."""

    code = "keys_unavailable"
    retry_after_seconds = 10


class StorageUnavailable(Unavailable):
    """The storage of files could not be reached."""

    code = "storage_unavailable"


class DatabaseUnavailable(Unavailable):
    """The database could not be reached, or refused work for want of resources, after the allowed tries."""

    code = "database_unavailable"


def error_of(code: str | None) -> ChatError:
    """The error that a ledger remembers by its code; for an assistant's own, the general one."""
    kinds = [ChatError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return next((kind() for kind in kinds if kind.code == code), InternalError())
