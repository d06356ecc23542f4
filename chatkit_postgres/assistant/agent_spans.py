"""Hands the spans of the Agents SDK on to OpenTelemetry: agents, calls of models, tools, guardrails, handoffs."""

import json
from collections import OrderedDict
from typing import Any

from agents import AgentSpanData, FunctionSpanData, GenerationSpanData, GuardrailSpanData, HandoffSpanData
from agents.tracing import (
    ResponseSpanData,
    Span,
    SpanData,
    Trace,
    TracingProcessor,
    add_trace_processor,
    get_current_span,
    set_trace_processors,
)
from opentelemetry import trace as otel_trace
from opentelemetry.context import Context
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import StatusCode

from chatkit_postgres.observability import trace_names as names
from chatkit_postgres.observability.otel import OpenTelemetry
from chatkit_postgres.observability.tracing import called_model, conversation

SHOWN = (
    AgentSpanData,
    FunctionSpanData,
    GenerationSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    ResponseSpanData,
)
MAX_OPEN = 50_000


def hand_on_spans(tracer: OpenTelemetry, *, beside_openai: bool) -> None:
    """``beside_openai``: the SDK also sends its traces to OpenAI, as ``CHAT_TRACING`` wants it."""
    spans = AgentSpans(tracer)
    tracer.innermost = spans.current
    if beside_openai:
        add_trace_processor(spans)
    else:
        set_trace_processors([spans])


class AgentSpans(TracingProcessor):
    def __init__(self, tracer: OpenTelemetry) -> None:
        self._tracer = tracer
        self._traces: OrderedDict[str, Context] = OrderedDict()
        """By the SDK's trace id: where its spans hang."""
        self._open: OrderedDict[str, RecordedSpan] = OrderedDict()
        """By the SDK's span id."""

    def current(self) -> RecordedSpan | None:
        span = get_current_span()
        return self._open.get(span.span_id) if span is not None else None

    def on_trace_start(self, trace: Trace) -> None:
        self._traces[trace.trace_id] = self._tracer.context()
        _bound(self._traces)

    def on_trace_end(self, trace: Trace) -> None:
        self._traces.pop(trace.trace_id, None)

    def on_span_start(self, span: Span[Any]) -> None:
        parent = self._open.get(span.parent_id or "")
        if parent is None:
            parent = otel_trace.get_current_span(self._traces.get(span.trace_id))
        if not isinstance(span.span_data, SHOWN):
            # What is below it hangs where it would.
            self._open[span.span_id] = parent
            return
        context = otel_trace.set_span_in_context(parent)
        made = self._tracer.tracer.start_span(_name(span.span_data), context=context)
        about = conversation.get()
        if about is not None and isinstance(span.span_data, AgentSpanData | GenerationSpanData | ResponseSpanData):
            made.set_attributes(dict(about()))
        if isinstance(span.span_data, ResponseSpanData) and (model := called_model.get()) is not None:
            made.update_name(f"chat {model}")
            made.set_attributes(dict(names.model(model)))
        self._open[span.span_id] = made
        _bound(self._open)

    def on_span_end(self, span: Span[Any]) -> None:
        made = self._open.pop(span.span_id, None)
        if made is None or not isinstance(span.span_data, SHOWN):
            return
        try:
            if not isinstance(span.span_data, ResponseSpanData):
                made.update_name(_name(span.span_data))
            made.set_attributes(dict(_attributes(span.span_data)))
            if self._tracer.with_content:
                made.set_attributes(_content(span.span_data))
            if span.error is not None:
                # Its message and data may quote a user.
                made.set_status(StatusCode.ERROR)
        finally:
            made.end()

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


def _bound(kept: OrderedDict[str, Any]) -> None:
    """Forget the oldest: the end of an abandoned run never comes."""
    while len(kept) > MAX_OPEN:
        kept.popitem(last=False)


def _name(data: SpanData) -> str:  # noqa: PLR0911 - one for each kind
    match data:
        case AgentSpanData():
            return f"invoke_agent {data.name}"
        case GenerationSpanData():
            return f"chat {data.model or ''}".rstrip()
        case ResponseSpanData():
            return "chat"
        case FunctionSpanData():
            return f"execute_tool {data.name}"
        case GuardrailSpanData():
            return f"guardrail {data.name}"
        case HandoffSpanData():
            return f"handoff {data.to_agent or ''}".rstrip()
        case _:
            return data.type


def _attributes(data: SpanData) -> names.Attributes:  # noqa: PLR0911 - one for each kind
    match data:
        case AgentSpanData():
            return names.agent(data.name)
        case GenerationSpanData():
            return {**names.model_call(), **_model(data.model), **_usage(data.usage)}
        case ResponseSpanData():
            return {**names.model_call(), **_usage(data.usage)}
        case FunctionSpanData():
            return names.tool(data.name)
        case GuardrailSpanData():
            return names.guardrail(data.name, is_triggered=data.triggered)
        case HandoffSpanData():
            return names.handoff(data.to_agent or "")
        case _:
            return {}


def _model(name: object) -> names.Attributes:
    return names.model(name) if isinstance(name, str) else {}


def _usage(counts: dict[str, Any] | None) -> names.Attributes:
    if not counts:
        return {}
    return names.usage(*(int(counts.get(name) or 0) for name in ("input_tokens", "output_tokens")))


def _content(data: SpanData) -> dict[str, str]:
    match data:
        case GenerationSpanData():
            given: tuple[Any, ...] = (names.INPUT, data.input, names.OUTPUT, data.output)
        case ResponseSpanData():
            given = (names.INPUT, data.input, names.OUTPUT, getattr(data.response, "output", None))
        case FunctionSpanData():
            given = (names.TOOL_INPUT, data.input, names.TOOL_OUTPUT, data.output)
        case _:
            return {}
    inputs, asked, outputs, said = given
    return {
        name: _text(value) for keys, value in ((inputs, asked), (outputs, said)) if value is not None for name in keys
    }


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
    return text[: names.MAX_CONTENT]


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
