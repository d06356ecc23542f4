"""Spans of OpenTelemetry, as a collector receives them."""

import json
import socket
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
from opentelemetry.sdk.trace.sampling import Decision
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.observability.trace_sampling import TracesPerSecond
from tests.faults.harness import SECRET, environment, new_user, script
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    clean_environment,
    eventually,
    http,
    message,
    thread_id_of,
)

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"
CANARY = "canary-7f3a"
EACH_STATEMENT = {"CHAT_TRACE_STATEMENT_SECONDS": "0"}
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
        return [span for span in self.all_spans() if span.trace_id.hex() == trace_id]

    def all_spans(self) -> list[Any]:
        return [
            span
            for body in list(self.bodies)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
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


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
def test_a_turn_is_one_tree(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector, api: str
) -> None:
    before = len(model_server.calls())
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_MODEL_API=api, **EACH_STATEMENT)
    user = new_user()
    events = ask(server, user, USES_A_TOOL)
    assert any(event["type"] == "thread.item.done" for event in events)
    assert server.stop() == 0
    spans = collector.spans(PARENT)
    (request,) = [span for span in spans if span.name == "POST /api/chatkit"]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    (turn,) = [span for span in spans if span.name == "turn threads.create"]
    paths = [names_to(spans, span) for span in spans]
    agent = next(span.name for span in spans if span.name.startswith("invoke_agent"))
    calls = [span for span in spans if span.name.startswith("chat")]
    (tool,) = [span for span in spans if span.name.startswith("execute_tool")]
    root = ["POST /api/chatkit", "turn threads.create"]
    assert all(path[:2] == root for path in paths if len(path) > 2)
    assert len(calls) == 2
    assert all(agent in names_to(spans, call) for call in calls)
    assert agent in names_to(spans, tool)
    statements = {span.name for span in spans if attributes(span).get("db.system.name") == "postgresql"}
    assert {"count_requests", "hold_turn", "append_item", "finish_turn"} <= statements
    check_names(spans, turn, calls, tool, user, thread_id_of(events))
    # The model's server goes on with the trace, from the call.
    sent = {call["traceparent"] for call in model_server.calls()[before:] if CANARY in str(call["body"])}
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
    below = [span for span in spans if "db.operation.name" in attributes(span) and turn.name in names_to(spans, span)]
    assert attributes(turn)["chatkit.statements"] == len(below) > 2
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
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_SEARCH_TOOL="true", **EACH_STATEMENT)
    ask(server, new_user(), 'use the tool search_conversations {"query": "pearls"}')
    assert server.stop() == 0
    spans = collector.spans(PARENT)
    paths = [names_to(spans, span) for span in spans if attributes(span).get("db.system.name") == "postgresql"]
    assert any("execute_tool search_conversations" in path for path in paths), paths


def test_a_call_of_an_mcp_server_goes_on_with_the_trace(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    program = {"command": sys.executable, "args": ["-m", "tests.support.mcp_server", "stdio"], "cwd": str(ROOT)}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"here": program}}))
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_MCP_FILE="mcp.json")
    eventually(lambda: "mcp_connected" in server.log, what="the MCP server is connected")
    before = len(model_server.calls())
    ask(server, new_user(), "use the tool mcp_here__parent {}")
    assert server.stop() == 0
    (tool,) = [span for span in collector.spans(PARENT) if span.name.startswith("execute_tool")]
    told = str(model_server.calls()[before:])
    assert f"called below 00-{PARENT}-{tool.span_id.hex()}-01" in told


def test_a_statement_is_a_span_if_it_took_long_or_failed() -> None:
    program = f"""
import time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from chatkit_postgres.observability import tracing

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracing.start_tracing(version="1", statement_seconds=0.2)
with tracing.statement_span("outside"):
    time.sleep(0.3)
with tracing.span("turn", {{}}), tracing.statement_span("fast"):
    pass
with tracing.span("turn", {{}}):
    with tracing.statement_span("slow"):
        time.sleep(0.3)
    try:
        with tracing.statement_span("failed"):
            raise ValueError("{CANARY}")
    except ValueError:
        pass
for span in exporter.get_finished_spans():
    seconds = (span.end_time - span.start_time) / 1e9
    print(span.name, span.attributes.get("chatkit.statements"), span.status.description, seconds >= 0.3)
"""
    lines = run_program(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1").splitlines()
    assert lines == ["turn 1 None False", "slow None None True", "failed None ValueError False", "turn 2 None True"]


def test_so_many_traces_are_begun_in_a_second() -> None:
    now = 0.0
    sampler = TracesPerSecond(2, clock=lambda: now)

    def taken(number: int) -> int:
        return sum(sampler.should_sample().decision is Decision.RECORD_AND_SAMPLE for _ in range(number))

    assert taken(100) == 10, "five seconds' worth, after a calm time"
    found = []
    for step in range(1, 101):
        now = step / 10
        found.append(taken(7))
    assert sum(found) == 20
    now = 1000.0
    assert taken(100) == 10


def test_what_failed_is_sent_from_a_trace_that_is_left_out() -> None:
    program = f"""
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from chatkit_postgres.observability import tracing

tracing.start_tracing(version="1", per_second=0.1)
exporter = InMemorySpanExporter()
tracing.tracer()._own.add_span_processor(SimpleSpanProcessor(exporter))
def request(about, flags=None, fails=False):
    headers = {{}} if flags is None else {{"traceparent": f"00-{PARENT}-00f067aa0ba902b7-{{flags}}"}}
    with tracing.span(about, {{}}, headers=headers) as outer:
        print(about, tracing.is_recording(), int(tracing.trace_headers()["traceparent"][-1]) & 1)
        with tracing.span("turn of " + about, {{"a": 1}}) as turn:
            turn.set({{"b": 2}}, is_failed=fails)
        assert outer.trace_id == turn.trace_id
    for span in exporter.get_finished_spans():
        assert span.end_time > span.start_time
        print("-", span.name, dict(span.attributes).get("b"), span.status.status_code.name)
        assert f"{{span.context.trace_id:032x}}" == outer.trace_id
    exporter.clear()
request("first")
request("one more")
request("one that fails", fails=True)
request("of a proxy that samples it", "01")
request("of a proxy that does not", "00", fails=True)
"""
    lines = run_program(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1").splitlines()
    assert lines == [
        *("first True 1", "- turn of first 2 UNSET", "- first None UNSET"),
        "one more False 0",
        *("one that fails False 0", "- turn of one that fails 2 ERROR"),
        "of a proxy that samples it True 1",
        *("- turn of of a proxy that samples it 2 UNSET", "- of a proxy that samples it None UNSET"),
        "of a proxy that does not False 0",
    ]


def test_turns_beyond_the_bound_are_no_spans_but_those_that_fail(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_TRACES_PER_SECOND="0.001")
    client = ChatClient(server.base_url, mint(SECRET, new_user(), seconds=600))
    before = len(model_server.calls())
    for text in (USES_A_TOOL, USES_A_TOOL, script(status=500, message=CANARY)):
        client.events("threads.create", input=message(text))
    assert server.stop() == 0
    spans = collector.all_spans()
    traced = [span.name for span in spans if span.status.code != span.status.STATUS_CODE_ERROR]
    failed = [span.name for span in spans if span.status.code == span.status.STATUS_CODE_ERROR]
    assert traced.count("POST /api/chatkit") == traced.count("turn threads.create") == 1
    assert sum(name.startswith("execute_tool") for name in traced) == 1
    assert failed == ["turn threads.create"]
    # The model's server is told which calls are part of a trace that is sent.
    flags = [int(call["traceparent"][-1]) & 1 for call in model_server.calls()[before:] if CANARY in str(call["body"])]
    assert flags[:4] == [1, 1, 0, 0]
    assert set(flags[4:]) == {0}


def test_content_is_sent_if_that_is_wanted(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url, CHAT_TRACE_CONTENT="true")
    ask(server, new_user(), USES_A_TOOL)
    assert server.stop() == 0
    calls = [attributes(span) for span in collector.spans(PARENT) if span.name.startswith("chat")]
    for name in ("gen_ai.input.messages", "input.value"):
        assert any(CANARY in call[name] for call in calls)


def test_what_a_user_searches_for_is_in_no_span_and_probes_make_none(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url)
    client = ChatClient(server.base_url, mint(SECRET, new_user(), seconds=600))
    client.headers["traceparent"] = f"00-{PARENT}-00f067aa0ba902b7-01"
    client.headers["tracestate"] = f"note={CANARY}"
    assert client.get("/api/search", q=CANARY)["data"] == []
    assert server.stop() == 0
    paths = [attributes(span)["url.path"] for span in collector.spans(PARENT) if span.name == "GET /api/search"]
    assert paths == ["/api/search"]
    assert not any(CANARY.encode() in body or b"/health" in body for body in collector.bodies)


def test_a_turn_that_fails_is_an_error(
    tmp_path: Path, database_url: URL, model_server: ModelServer, collector: Collector
) -> None:
    server = serve(tmp_path, database_url, model_server, collector.url)
    ask(server, new_user(), script(status=500, message=CANARY))
    assert server.stop() == 0
    (turn,) = [span for span in collector.spans(PARENT) if span.name == "turn threads.create"]
    assert (turn.status.code, attributes(turn)["chatkit.state"]) == (turn.status.STATUS_CODE_ERROR, "failed")
    assert not any(CANARY.encode() in body for body in collector.bodies)


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_collector_that_is_gone_changes_nothing(
    tmp_path: Path, database_url: URL, model_server: ModelServer, is_silent: bool
) -> None:
    gone = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    if not is_silent:
        gone.close()
    server = serve(tmp_path, database_url, model_server, url)
    for _ in range(3):
        assert ask(server, new_user(), "Hello")[-1]["type"] != "error"
    assert http.get(f"{server.base_url}/health/ready").status_code == 200
    began = time.monotonic()
    assert server.stop() == 0
    # Two seconds for the collector, and what a busy machine adds.
    assert time.monotonic() - began < 8
    gone.close()


def run_program(program: str, **settings: str) -> str:
    own = {"DATABASE_URL": "postgresql://nowhere/none", "CHAT_JWT_SECRET": SECRET} | settings
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(**own),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CREATE = "import sys; from chatkit_postgres.main import create_app; create_app();"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["no exporter", "switched off", "no traces"],
)
def test_nothing_of_it_is_imported_without_an_exporter(settings: dict[str, str]) -> None:
    wanted = ("opentelemetry.sdk", "opentelemetry.exporter")
    found = f"{CREATE} print([name for name in sys.modules if name.startswith({wanted})])"
    assert run_program(found, **settings) == "[]"


def test_a_variable_that_it_does_not_understand_keeps_no_server_from_starting() -> None:
    wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "1"}
    assert run_program(f"{CREATE} print('started')", **wrong) == "started"


def test_an_address_without_a_scheme_is_said_at_the_start() -> None:
    program = f"{CREATE} from chatkit_postgres.observability import tracing; print(tracing.tracer())"
    listened = f"import sys, logging; logging.basicConfig(stream=sys.stdout); {program}"
    said = run_program(listened, OTEL_EXPORTER_OTLP_ENDPOINT="127.0.0.1:4318")
    assert "traces_not_sent" in said
    assert "begins with http://" in said
    assert said.endswith("None")


@pytest.mark.parametrize(("is_traced", "processors"), [("false", 1), ("true", 2)])
def test_the_sdks_own_traces_go_to_openai_only_if_that_is_wanted(is_traced: str, processors: int) -> None:
    program = (
        f"{CREATE} from agents.tracing import get_trace_provider;"
        "from chatkit_postgres.assistant.agent_tracing import hands_on_spans;"
        "from chatkit_postgres.observability import tracing;"
        "span = tracing.span('turn', {}); span.__enter__();"
        "print(hands_on_spans(), len(get_trace_provider()._multi_processor._processors))"
    )
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "CHAT_TRACING": is_traced}
    assert run_program(program, **settings) == f"True {processors}"
