"""Turns the exception that ended a run into a user-facing error."""

from collections.abc import Iterator
from contextlib import contextmanager

from agents import UserError
from chatkit.errors import BaseStreamError

from chatkit_postgres.assistant.guardrails import TRIPPED, refusal_of
from chatkit_postgres.assistant.model_servers.provider_errors import user_facing_error
from chatkit_postgres.observability.logs import failure, get_logger

logger = get_logger(__name__)


@contextmanager
def user_facing_errors() -> Iterator[None]:
    """Raises the ChatError for a guardrail that tripped and for a model provider's failure, which is logged. Other
    exceptions pass as they are."""
    try:
        yield
    except TRIPPED as tripped:
        raise refusal_of(tripped) from None
    except UserError as error:
        # The Agents SDK wraps what a tool raises.
        if isinstance(error.__cause__, BaseStreamError):
            raise error.__cause__ from None
        raise
    except Exception as error:
        user_error = user_facing_error(error)
        if user_error is None:
            raise
        # Logged, because the provider's support asks for the request id first.
        request_id = getattr(error, "request_id", None)
        logger.warning("model_failed", shown=user_error.code, provider_request_id=request_id, **failure(error))
        raise user_error from None
