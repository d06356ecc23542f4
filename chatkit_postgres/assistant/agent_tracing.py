"""Whether the runs of agents are part of OpenTelemetry's traces. Imports nothing of it otherwise."""

from chatkit_postgres.observability.tracing import is_recording, tracer

_hands_on: list[bool] = []


def start_agent_spans(*, beside_openai: bool) -> bool:
    """Once, and only in a process of our own: a host's runs have processors of their own. Returns whether spans are
    handed on."""
    found = tracer()
    if found is None:
        return False
    if not _hands_on:
        from chatkit_postgres.assistant.agent_spans import hand_on_spans  # noqa: PLC0415 - imports OpenTelemetry
        from chatkit_postgres.observability.otel import OpenTelemetry  # noqa: PLC0415 - the same

        if not isinstance(found, OpenTelemetry):
            return False
        hand_on_spans(found, beside_openai=beside_openai)
        _hands_on.append(True)
    return True


def hands_on_spans() -> bool:
    """Whether the run that begins here is part of a trace that is sent: its spans cost nothing otherwise."""
    return bool(_hands_on) and is_recording()


def has_content() -> bool:
    found = tracer()
    return found is not None and found.with_content
