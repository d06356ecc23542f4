"""OpenTelemetry: the only module that imports it. Spans are sent over HTTP, by a thread, in batches."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chatkit_postgres.observability.trace_names import Attributes

STOP_SECONDS = 2.0
SERVICE = "chatkit-postgres"
TAKEN = ("traceparent",)
"""Not ``tracestate``: it is a text of the client's, and would be handed on to the model and to MCP servers."""

_propagator = TraceContextTextMapPropagator()


class RecordedSpan:
    def __init__(self, span: Span) -> None:
        self.span = span

    @property
    def trace_id(self) -> str | None:
        context = self.span.get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    def set(self, attributes: Attributes, *, is_failed: bool = False) -> None:
        self.span.set_attributes(dict(attributes))
        if is_failed:
            self.span.set_status(StatusCode.ERROR)


class OpenTelemetry:
    def __init__(self, *, version: str, with_content: bool) -> None:
        self.with_content = with_content
        self.innermost: Callable[[], Span | None] = lambda: None
        """The span of an agent's run that is going on in this task: its own tracing knows it."""
        given = trace.get_tracer_provider()
        # A host that mounts this server may have set one; its processors see our spans, too.
        self._own: TracerProvider | None = None
        if isinstance(given, TracerProvider):
            provider = given
        else:
            # At the end of the process it would wait for half a minute for a collector that does not answer.
            provider = self._own = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = provider.get_tracer("chatkit_postgres", version)

    @contextmanager
    def span(self, name: str, attributes: Attributes, headers: Mapping[str, str] | None) -> Iterator[RecordedSpan]:
        parent = None
        # A host that mounts this server may have a span of the request, which knows the headers.
        if headers is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = _propagator.extract({name: headers[name] for name in TAKEN if name in headers})
        kind = SpanKind.SERVER if headers is not None else SpanKind.INTERNAL
        with self.tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield RecordedSpan(span)

    @contextmanager
    def child_span(self, name: str, attributes: Attributes) -> Iterator[None]:
        parent = self._innermost()
        if not parent.is_recording():
            yield
            return
        span = self.tracer.start_span(
            name, context=trace.set_span_in_context(parent), kind=SpanKind.CLIENT, attributes=dict(attributes)
        )
        try:
            yield
        except BaseException as error:
            # Its message may quote values.
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    @contextmanager
    def innermost_is_current(self) -> Iterator[None]:
        with trace.use_span(self._innermost(), record_exception=False, set_status_on_exception=False):
            yield

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


def _resource(version: str) -> Resource:
    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({SERVICE_VERSION: version} | ({} if is_named else {SERVICE_NAME: SERVICE}))
