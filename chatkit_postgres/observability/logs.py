"""Structured logs on stderr: one JSON object, or one readable line, per event.

Names, ids, counts, timings and outcomes may be logged; message text, tokens and query strings must not be.
"""

import asyncio
import logging
import sys
import traceback
from typing import Any, Literal

import structlog

LogFormat = Literal["json", "console"]

MAX_CODE = 100
MAX_CAUSE = 20

QUIET = (
    "alembic",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "openai",
    "openai.agents",
    "mcp",
    # A logger of the MCP SDK.
    "client",
)


def _without_messages_of_exceptions(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace all exceptions, also of libraries: tracebacks print messages, and pretty ones also local variables."""
    found = event.pop("exc_info", None)
    record = event.get("_record")
    if found is None and record is not None:
        found = record.exc_info
    if record is not None:
        record.exc_info = record.exc_text = None
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event.update(failure(error))
    return event


# All loggers of this package share this list, and configure_logging changes it. Without that call, as in a host that
# mounts our application, each line is plain text for the handlers of the host.
_processors: list[structlog.typing.Processor] = [
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    _without_messages_of_exceptions,
    structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
]


def configure_logging(*, level: str, log_format: LogFormat) -> None:
    """Send our events and those of the libraries through one handler. Can be called repeatedly."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_messages_of_exceptions,
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "chatkit"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
    # Each request is logged once, by our own middleware, with its outcome and without its query string.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # The SDK logs client input and whole exceptions; we log the parts that matter.
    logging.getLogger("chatkit").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").addFilter(_is_worth_reading)
    # At INFO these loggers print every call of a model; at DEBUG also its text, and requests to MCP servers.
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_worth_reading(record: logging.LogRecord) -> bool:
    # When a turn is stopped, the SDK leaves two of its iterators' tasks unread; asyncio calls that an error.
    if record.exc_info and isinstance(record.exc_info[1], StopAsyncIteration):
        return False
    return not ("Task was destroyed but it is pending" in record.msg and "_AsyncQueueIterator" in record.getMessage())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_processors,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return logger


def failure(error: BaseException) -> dict[str, object]:
    """Loggable fields of an exception: its type, the lines it passed through, a provider's or a driver's code; not its
    message, which may quote a conversation."""
    fields: dict[str, object] = {"error": type(error).__name__, "at": _places(error)}
    cause = _innermost(error)
    if cause is not error:
        fields |= {"cause": type(cause).__name__, "cause_at": _places(cause)}
    # A driver's error inside SQLAlchemy's, whose own `code` only names a page of its documentation.
    inner = getattr(error, "orig", None)
    fields |= (
        _codes(error, "status_code", "code", "type", "param", "sqlstate")
        if inner is None
        else _codes(inner, "sqlstate")
    )
    return fields


def log_failure(logger: structlog.stdlib.BoundLogger, event: str, error: BaseException, **more: object) -> None:
    """Log an error with the ``failure`` fields of its exception."""
    logger.error(event, **more, **failure(error))


def reason_of(error: BaseException) -> str:
    """The innermost exception's type, and the operating system's message, which names a configured host or program and
    never quotes a conversation."""
    error = _innermost(error)
    message = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _innermost(error: BaseException) -> BaseException:
    for _ in range(MAX_CAUSE):
        inner = _inside(error)
        # Inside a timeout is a cancellation, which explains less.
        if inner is None or isinstance(inner, asyncio.CancelledError):
            break
        error = inner
    return error


def _places(error: BaseException) -> list[str]:
    """The last four lines the exception passed through, preceded by the last earlier one outside of libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames[:-4] if "site-packages" not in frame.filename][-1:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in [*ours, *frames[-4:]]]


def _inside(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _codes(error: object, *names: str) -> dict[str, object]:
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, int) or _is_short(value)}


def _is_short(value: object) -> bool:
    """Codes are short; a message that a server sends in place of a code may not be."""
    return isinstance(value, str) and len(value) <= MAX_CODE
