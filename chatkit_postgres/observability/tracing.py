"""Spans of a request, its turn and its statements, for OpenTelemetry.

Nothing is traced, and nothing of OpenTelemetry is imported, unless the environment names an exporter.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.trace_names import Attributes

logger = get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

called_model: ContextVar[str | None] = ContextVar("called_model", default=None)
"""The model that this task calls: the SDK's spans of the Responses API do not name it."""
conversation: ContextVar[Callable[[], Attributes] | None] = ContextVar("conversation", default=None)
"""What the spans of agents and models say of the thread and the user. Set where a turn begins."""


class Span(Protocol):
    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; None if nothing is traced."""

    def set(self, attributes: Attributes, *, is_failed: bool = False) -> None: ...

    def set_with_parent(self, attributes: Attributes) -> None:
        """Here and, unless it has ended, in the span around this one."""

    def rename(self, name: str) -> None: ...


class Tracer(Protocol):
    with_content: bool

    def span(
        self, name: str, attributes: Attributes, headers: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]: ...

    def statement_span(self, name: str) -> AbstractContextManager[object]: ...

    def innermost_is_current(self) -> AbstractContextManager[None]: ...

    def is_recording(self) -> bool: ...

    def headers(self) -> dict[str, str]: ...

    def stop(self) -> None: ...


class _NoSpan:
    trace_id = None

    def set(self, attributes: Attributes, *, is_failed: bool = False) -> None:
        pass

    def set_with_parent(self, attributes: Attributes) -> None:
        pass

    def rename(self, name: str) -> None:
        pass


_NOTHING = nullcontext(_NoSpan())
_tracer: Tracer | None = None


def start_tracing(
    *, version: str, with_content: bool = False, statement_seconds: float = 0.0, per_second: float = 0.0
) -> None:
    """Does nothing if no exporter is configured, or if it was started before. Statements
    are counted in the span around them; one that takes at least ``statement_seconds``, or fails, is a span, too.
    At most ``per_second`` traces are begun in a second (0: all), unless the caller or OpenTelemetry's own variables
    decide."""
    global _tracer  # noqa: PLW0603 - as OpenTelemetry, once in a process
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    if _tracer is not None or endpoint is None or _is_switched_off():
        return
    if not endpoint.startswith(("http://", "https://")):
        # The exporter would only say so with the first traces.
        logger.warning("traces_not_sent", cure=f"{ENDPOINTS[1]}: a URL that begins with http:// or https://")
        return
    # The variables may be the platform's, which sets them for all programs.
    try:
        from chatkit_postgres.observability.otel import OpenTelemetry  # noqa: PLC0415 - not imported otherwise

        _tracer = OpenTelemetry(
            version=version, with_content=with_content, statement_seconds=statement_seconds, per_second=per_second
        )
    except ImportError:
        logger.warning("traces_not_sent", cure="install the extra `traces`")
    except Exception as error:  # noqa: BLE001 - a variable that OpenTelemetry does not understand
        log_failure(logger, "traces_not_sent", error, cure="look at the variables that begin with OTEL_")


def _is_switched_off() -> bool:
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return is_disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"


def tracer() -> Tracer | None:
    return _tracer


def stop_tracing() -> None:
    """Send what is left. Waits two seconds at most."""
    if _tracer is not None:
        _tracer.stop()


def span(
    name: str, attributes: Attributes, *, headers: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """A span around a block. ``headers``: of the request that caused it, which may name its parent."""
    return _NOTHING if _tracer is None else _tracer.span(name, attributes, headers)


def nothing() -> AbstractContextManager[Span]:
    """In place of a span."""
    return _NOTHING


def statement_span(name: str) -> AbstractContextManager[object]:
    """A span around a statement, if it is part of a trace and took long or failed."""
    return _NOTHING if _tracer is None else _tracer.statement_span(name)


def is_recording() -> bool:
    """Whether what happens here is part of a trace that is sent."""
    return _tracer is not None and _tracer.is_recording()


def is_content_traced() -> bool:
    """Whether spans are to contain what users, models and tools say, and are sent from here."""
    return is_recording() and _tracer is not None and _tracer.with_content


def innermost_is_current() -> AbstractContextManager[object]:
    """In the block, OpenTelemetry's own current span is the innermost one, for libraries that ask for it."""
    return _NOTHING if _tracer is None else _tracer.innermost_is_current()


def trace_headers() -> dict[str, str]:
    """The headers by which another server goes on with the trace."""
    return {} if _tracer is None else _tracer.headers()
