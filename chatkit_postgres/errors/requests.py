"""Client errors (4xx)."""

from chatkit.store import NotFoundError

from chatkit_postgres.errors.base import ChatError


class BadRequest(ChatError):
    status = 400
    code = "bad_request"
    sentence = "The request body must be a JSON document."


class Unauthorized(ChatError):
    status = 401
    code = "unauthorized"
    sentence = "Please sign in again."

    def __init__(self, sentence: str | None = None, *, fault: str | None = None) -> None:
        """``fault``: what is wrong with the token, for the log: the client does not receive it."""
        super().__init__(sentence)
        self.fault = fault


class Forbidden(ChatError):
    """The user is known and not allowed to do this."""

    status = 403
    code = "forbidden"
    sentence = "This is not allowed."


class UserDisabled(Forbidden):
    code = "user_disabled"
    sentence = "This account is disabled."


class ForeignOrigin(Forbidden):
    """The token is in a cookie, which browsers also send with requests of other sites' pages."""

    code = "foreign_origin"
    sentence = "Requests from this page are not accepted."


class NotFound(ChatError, NotFoundError):
    """The object does not exist, or belongs to another user: the response is the same."""

    status = 404
    code = "not_found"
    sentence = "This conversation or message does not exist."


class MethodNotAllowed(ChatError):
    status = 405
    code = "method_not_allowed"
    sentence = "This URL does not support that method."


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
    sentence = "This conversation is not waiting for that answer."


class ThreadNotActive(Conflict):
    code = "thread_not_active"
    sentence = "This conversation accepts no new messages."


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
    """The attachment is not uploaded yet, or was sent before."""

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
    """The signed URL was valid once. One that never was raises NotFound."""

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
    """The file's type is not accepted, or its content does not match that type."""

    code = "file_refused"
    sentence = "Files of this type are not accepted."


class HeadersTooLarge(ChatError):
    status = 431
    code = "headers_too_large"
    sentence = "The request's headers are too large."


class Unprocessable(ChatError):
    """The body is JSON but not a valid request. The sentence names the field."""

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


class BudgetUsedUp(TooManyRequests):
    code = "budget_used_up"
    sentence = "You have used up your tokens of today."
    retry = False

    def __init__(self, *, retry_after_seconds: int | None = None, is_held: bool = False) -> None:
        """``is_held``: running answers of the user hold what is left."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        if is_held:
            self.message = "Your other answers may need the rest of your tokens of today. Please wait for one of them."
            self.allow_retry = True


class TooManyFollowers(TooManyRequests):
    code = "too_many_followers"
    sentence = "This answer is open in too many places. Please close one of them."


class TooManyExports(TooManyRequests):
    code = "too_many_exports"
    sentence = "An export is being made already. Please wait until it has ended."


class TooManyAttachments(TooManyRequests):
    code = "too_many_attachments"
    sentence = "Too many files are waiting to be sent. Please send or remove some first."
