"""Records why an answer ended early: a code in the ledger, the exception's type in the log, never its message."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from chatkit.errors import BaseStreamError, ErrorCode, StreamError
from chatkit.types import ThreadStreamEvent

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AssistantRefused, ChatError, InternalError
from chatkit_postgres.observability.logs import get_logger, log_failure

logger = get_logger(__name__)


async def recording_failure(
    events: AsyncGenerator[ThreadStreamEvent, None], context: RequestContext
) -> AsyncGenerator[ThreadStreamEvent, None]:
    """Yields the same events. On failure, sets the turn's error code and logs the exception without its message."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except BaseStreamError as error:
        own = InternalError.code if error.allow_retry else AssistantRefused.code
        _record(context, error.code if isinstance(error, ChatError) else own)
        raise
    except Exception as error:  # noqa: BLE001 - the SDK would log the message
        _record(context, "assistant_failed")
        log_failure(logger, "assistant_failed", error)
        raise StreamError(ErrorCode.STREAM_ERROR, allow_retry=True) from None


def _record(context: RequestContext, code: str) -> None:
    if context.turn is not None:
        context.turn.error_code = code
