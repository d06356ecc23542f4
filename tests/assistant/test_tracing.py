"""Traces hold conversations; they leave only where somebody asked for it."""

from typing import Any

import pytest
from agents import add_trace_processor
from agents.tracing import TracingProcessor, set_trace_processors

from app.store import DatabaseStore
from tests.support.chat import Chat, create, demo_assistant


class Seen(TracingProcessor):
    def __init__(self) -> None:
        self.spans = 0

    def on_trace_start(self, trace: Any) -> None:
        self.spans += 1

    def on_trace_end(self, trace: Any) -> None:
        pass

    def on_span_start(self, span: Any) -> None:
        self.spans += 1

    def on_span_end(self, span: Any) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


@pytest.mark.parametrize("is_traced", [False, True])
async def test_nothing_is_traced_unless_it_is_configured(store: DatabaseStore, is_traced: bool) -> None:
    seen = Seen()
    set_trace_processors([])
    add_trace_processor(seen)
    try:
        assistant = demo_assistant()
        assistant.is_traced = is_traced
        await Chat(store, assistant).events(create("Hello"))
        assert (seen.spans > 0) == is_traced
    finally:
        set_trace_processors([])
