"""Spans of OpenTelemetry, which are sent over HTTP, by a thread, in batches."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chatkit_postgres.observability import trace_names
from chatkit_postgres.observability.trace_names import Attributes
from chatkit_postgres.observability.trace_sampling import TracesPerSecond

STOP_SECONDS = 2.0
SERVICE = "chatkit-postgres"
PROPAGATED = ("traceparent",)
"""Not ``tracestate``: it is a text of the client's, and would be handed on to the model and to MCP servers."""

_propagator = TraceContextTextMapPropagator()


@dataclass
class _Counted:
    """The statements of a request or of a turn."""

    number: int = 0
    nanoseconds: int = 0


_counted: ContextVar[_Counted | None] = ContextVar("counted", default=None)
_is_unsampled: ContextVar[bool] = ContextVar("is_unsampled", default=False)
"""Whether the trace around this task is one more than are begun in a second."""


class RecordedSpan:
    def __init__(self, name: str, span: Span, parent: Span, attributes: Attributes) -> None:
        self.name = name
        self.span = span
        self._parent = parent
        self.attributes = dict(attributes)
        self.is_failed = False

    @property
    def trace_id(self) -> str | None:
        context = self.span.get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    def set(self, attributes: Attributes, *, is_failed: bool = False) -> None:
        self.attributes |= attributes
        self.span.set_attributes(dict(attributes))
        if is_failed:
            self.is_failed = True
            self.span.set_status(StatusCode.ERROR)

    def set_with_parent(self, attributes: Attributes) -> None:
        self.set(attributes)
        if self._parent.is_recording():
            self._parent.set_attributes(dict(attributes))

    def rename(self, name: str) -> None:
        self.name = name
        self.span.update_name(name)


class _StatementSpan:
    """Becomes a span when the statement has ended, if it took long or failed: a span for each would cost more than many
    statements do."""

    __slots__ = ("_began", "_name", "_telemetry")

    def __init__(self, telemetry: "OpenTelemetry", name: str) -> None:
        self._telemetry, self._name = telemetry, name

    def __enter__(self) -> None:
        self._began = time.time_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = time.time_ns()
        if (counted := _counted.get()) is not None:
            counted.number += 1
            counted.nanoseconds += ended - self._began
        if kind is not None or ended - self._began >= self._telemetry.statement_nanoseconds:
            self._telemetry.record_statement(self._name, self._began, ended, kind)


class OpenTelemetry:
    def __init__(self, *, version: str, with_content: bool, statement_seconds: float, per_second: float) -> None:
        self.with_content = with_content
        self.statement_nanoseconds = int(statement_seconds * 1e9)
        self.innermost: Callable[[], Span | None] = lambda: None
        """The span of an agent's run that is going on in this task: its own tracing knows it."""
        given = trace.get_tracer_provider()
        # A host that mounts this server may have set one; its processors see our spans, too.
        self._own: TracerProvider | None = None
        if isinstance(given, TracerProvider):
            provider = given
        else:
            # At the end of the process it would wait for half a minute for a collector that does not answer.
            provider = self._own = TracerProvider(
                resource=_resource(version), shutdown_on_exit=False, sampler=_sampler(per_second)
            )
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = provider.get_tracer("chatkit_postgres", version)

    @contextmanager
    def span(self, name: str, attributes: Attributes, headers: Mapping[str, str] | None) -> Iterator[RecordedSpan]:
        parent = None
        # A host that mounts this server may have a span of the request, which knows the headers.
        if headers is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = _propagator.extract({name: headers[name] for name in PROPAGATED if name in headers})
        around_it = trace.get_current_span(parent)
        is_root = not around_it.get_span_context().is_valid
        kind = SpanKind.SERVER if headers is not None else SpanKind.INTERNAL
        began = time.time_ns()
        with self.tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            recorded, counted = RecordedSpan(name, span, around_it, attributes), _Counted()
            around = _counted.set(counted)
            before = _is_unsampled.set(not span.is_recording() if is_root else _is_unsampled.get())
            try:
                yield recorded
            finally:
                _counted.reset(around)
                recorded.set(trace_names.statements(counted.number, counted.nanoseconds // 1_000_000))
                if recorded.is_failed and _is_unsampled.get() and self._own is not None:
                    self._record_failure(recorded, kind, began)
                _is_unsampled.reset(before)

    def _record_failure(self, recorded: RecordedSpan, kind: SpanKind, began: int) -> None:
        """What failed is sent alone, if the trace that it is part of is not."""
        left_out = recorded.span.get_span_context()
        parent = NonRecordingSpan(
            SpanContext(
                left_out.trace_id, left_out.span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )
        )
        context = trace.set_span_in_context(parent)
        span = self.tracer.start_span(
            recorded.name, context=context, kind=kind, attributes=recorded.attributes, start_time=began
        )
        span.set_status(StatusCode.ERROR)
        span.end()

    def statement_span(self, name: str) -> _StatementSpan:
        return _StatementSpan(self, name)

    def record_statement(self, name: str, began: int, ended: int, error: type[BaseException] | None) -> None:
        """``began`` and ``ended``: in nanoseconds since 1970."""
        parent = self._innermost()
        if not parent.is_recording():
            return
        context, attributes = trace.set_span_in_context(parent), dict(trace_names.statement(name))
        span = self.tracer.start_span(
            name, context=context, kind=SpanKind.CLIENT, attributes=attributes, start_time=began
        )
        if error is not None:
            # Not its message, which may quote values.
            span.set_status(StatusCode.ERROR, error.__name__)
        span.end(ended)

    @contextmanager
    def innermost_is_current(self) -> Iterator[None]:
        with trace.use_span(self._innermost(), record_exception=False, set_status_on_exception=False):
            yield

    def is_recording(self) -> bool:
        return self._innermost().is_recording()

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        _propagator.inject(found, context=self.context())
        return found

    def context(self) -> Context:
        return trace.set_span_in_context(self._innermost())

    def _innermost(self) -> Span:
        return self.innermost() or trace.get_current_span()

    def stop(self) -> None:
        if self._own is not None:
            # An exporter that is dead would be waited for.
            sending = threading.Thread(target=self._own.force_flush, daemon=True)
            sending.start()
            sending.join(STOP_SECONDS)


def _sampler(per_second: float) -> Sampler | None:
    """None: as OpenTelemetry's own variables say, which by default is every trace."""
    if per_second == 0 or "OTEL_TRACES_SAMPLER" in os.environ:
        return None
    return ParentBased(TracesPerSecond(per_second))


def _resource(version: str) -> Resource:
    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({SERVICE_VERSION: version} | ({} if is_named else {SERVICE_NAME: SERVICE}))
