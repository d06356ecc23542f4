"""Turns an exception that ends an answer into its last event, and records why the answer failed."""

from chatkit.errors import CustomStreamError, ErrorCode, StreamError
from chatkit.types import ErrorEvent

from chatkit_postgres.errors import AssistantRefused, ChatError, InternalError
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.outcome import Outcome

logger = get_logger(__name__)


def failure_event(error: Exception, outcome: Outcome) -> ErrorEvent:
    """Record the error's code in the outcome. An unexpected exception is logged by its type, never with its message,
    which may quote the user."""
    match error:
        case CustomStreamError():
            outcome.error_code = _code_of(error)
            return ErrorEvent(code="custom", message=error.message, allow_retry=error.allow_retry)
        case StreamError():
            outcome.error_code = _code_of(error)
            return ErrorEvent(code=error.code, allow_retry=error.allow_retry)
        case _:
            outcome.error_code = "assistant_failed"
            log_failure(logger, "assistant_failed", error)
            return ErrorEvent(code=ErrorCode.STREAM_ERROR, allow_retry=True)


def _code_of(error: CustomStreamError | StreamError) -> str:
    if isinstance(error, ChatError):
        return error.code
    return InternalError.code if error.allow_retry else AssistantRefused.code
