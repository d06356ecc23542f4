"""Spans of OpenTelemetry, as a collector receives them."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    http,
    message,
    thread_id_of,
)

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"
CANARY = "canary-7f3a"
USES_A_TOOL = f'use the tool echo {{"words": "{CANARY}"}}'


class Collector:
    """Receives spans over HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self, trace_id: str) -> list[Any]:
        return [
            span
            for body in list(self.bodies)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex() == trace_id
        ]


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def serve(directory: Path, database: URL, model: ModelServer, collector: str, **more: str) -> ChatProcess:
    more = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools"} | more
    exporter = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return ChatProcess(directory, **environment(database, model, **exporter, **more)).wait_until_ready()


def ask(server: ChatProcess, user: str, text: str) -> list[dict[str, Any]]:
    client = ChatClient(server.base_url, mint(SECRET, user, seconds=600))
    client.headers["traceparent"] = f"00-{PARENT}-00f067aa0ba902b7-01"
    return client.events("threads.create", input=message(text))


def names_to(spans: list[Any], span: Any) -> list[str]:
    """From the outermost span to this one."""
    by_id = {one.span_id: one for one in spans}
    found = [span.name]
    while (span := by_id.get(span.parent_span_id)) is not None:
        found.insert(0, span.name)
    return found


def test_a_turn_is_one_tree(tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url)
    user = new_user()
    events = ask(server, user, USES_A_TOOL)
    assert any(event["type"] == "thread.item.done" for event in events)
    assert server.stop() == 0
    spans = collector.spans(PARENT)
    (request,) = [span for span in spans if span.name == "POST request"]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    (turn,) = [span for span in spans if span.name == "turn threads.create"]
    paths = [names_to(spans, span) for span in spans]
    agent = next(span.name for span in spans if span.name.startswith("invoke_agent"))
    calls = [span for span in spans if span.name.startswith("chat")]
    (tool,) = [span for span in spans if span.name.startswith("execute_tool")]
    root = ["POST request", "turn threads.create"]
    assert all(path[:2] == root for path in paths if len(path) > 2)
    assert len(calls) == 2
    assert all(agent in names_to(spans, call) for call in calls)
    assert agent in names_to(spans, tool)
    statements = {span.name for span in spans if attributes(span).get("db.system.name") == "postgresql"}
    assert {"count_requests", "hold_turn", "append_item", "finish_turn"} <= statements
    check_names(spans, turn, calls, tool, user, thread_id_of(events))
    # The model's server goes on with the trace, from the call.
    sent = {call["traceparent"] for call in model_server.calls() if CANARY in str(call["body"])}
    assert {parent.split("-")[1] for parent in sent if parent} == {PARENT}
    assert {parent.split("-")[2] for parent in sent} == {call.span_id.hex() for call in calls}
    # And no word of anybody.
    assert not any(CANARY.encode() in body for body in collector.bodies)
    (line,) = [line for line in server.log.splitlines() if '"path": "/api/chatkit"' in line]
    assert PARENT in line


def check_names(spans: list[Any], turn: Any, calls: list[Any], tool: Any, user: str, thread_id: str) -> None:
    described = {"session.id": thread_id, "user.id": user, "gen_ai.conversation.id": thread_id}
    assert described.items() <= attributes(turn).items()
    assert attributes(turn)["chatkit.state"] == "completed"
    for call in calls:
        wanted = described | {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "scripted",
            "gen_ai.usage.input_tokens": 70,
            "gen_ai.usage.output_tokens": 50,
            "openinference.span.kind": "LLM",
            "llm.model_name": "scripted",
            "llm.token_count.prompt": 70,
            "llm.token_count.total": 120,
        }
        assert wanted.items() <= attributes(call).items()
    wanted_of_tool = {"gen_ai.operation.name": "execute_tool", "openinference.span.kind": "TOOL"}
    assert wanted_of_tool.items() <= attributes(tool).items()
    agents = [attributes(span) for span in spans if span.name.startswith("invoke_agent")]
    assert {span["openinference.span.kind"] for span in agents} == {"AGENT"}


def test_what_a_tool_does_in_the_database_is_a_part_of_it(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_SEARCH_TOOL="true")
    ask(server, new_user(), 'use the tool search_conversations {"query": "pearls"}')
    assert server.stop() == 0
    spans = collector.spans(PARENT)
    paths = [names_to(spans, span) for span in spans if attributes(span).get("db.system.name") == "postgresql"]
    assert any("execute_tool search_conversations" in path for path in paths), paths


def test_content_is_sent_if_that_is_wanted(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_TRACE_CONTENT="true")
    ask(server, new_user(), USES_A_TOOL)
    assert server.stop() == 0
    calls = [attributes(span) for span in collector.spans(PARENT) if span.name.startswith("chat")]
    for name in ("gen_ai.input.messages", "input.value"):
        assert any(CANARY in call[name] for call in calls)


def test_a_collector_that_is_gone_changes_nothing(tmp_path: Path, database_url: URL, model_server: ModelServer) -> None:
    gone = Collector()
    gone.close()
    server = serve(tmp_path, database_url, model_server, gone.url)
    for _ in range(3):
        assert ask(server, new_user(), "Hello")[-1]["type"] != "error"
    assert http.get(f"{server.base_url}/health/ready").status_code == 200
    began = time.monotonic()
    assert server.stop() == 0
    # The longest that is waited for the collector, and what a busy machine adds.
    assert time.monotonic() - began < 25


def test_nothing_of_it_is_imported_without_an_exporter() -> None:
    program = (
        "import sys; from chatkit_postgres.main import create_app; create_app();"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    settings = {"DATABASE_URL": "postgresql://nowhere/none", "CHAT_JWT_SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
