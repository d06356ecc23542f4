"""The names of attributes in traces, by two conventions: both are drafts, so they are here alone.

OpenTelemetry's for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/), which Langfuse reads, and
OpenInference (https://github.com/Arize-ai/openinference), which Phoenix reads.
"""

from collections.abc import Mapping

Attributes = Mapping[str, str | int | bool]
MAX_CONTENT = 20_000
"""Characters of an input or an output."""

INPUT = ("gen_ai.input.messages", "input.value")
OUTPUT = ("gen_ai.output.messages", "output.value")
TOOL_INPUT = ("gen_ai.tool.call.arguments", "input.value")
TOOL_OUTPUT = ("gen_ai.tool.call.result", "output.value")


def conversation(thread_id: str | None, user_id: str) -> Attributes:
    thread = {"session.id": thread_id, "gen_ai.conversation.id": thread_id} if thread_id is not None else {}
    return {"user.id": user_id, **thread}


def shown_conversation(thread_id: str | None, user_id: str, question: str, answer: str) -> Attributes:
    """Attributes of the outermost span, by which Langfuse and Phoenix show what was said in a thread."""
    texts = {"input.value": question, "output.value": answer}
    said = {name: text[:MAX_CONTENT] for name, text in texts.items() if text}
    return {**conversation(thread_id, user_id), **said, "openinference.span.kind": "CHAIN"}


def request(method: str, path: str) -> Attributes:
    return {"http.request.method": method, "url.path": path}


def route(template: str) -> Attributes:
    return {"http.route": template}


def turn(operation: str) -> Attributes:
    return {"chatkit.operation": operation, "openinference.span.kind": "CHAIN"}


def turn_end(state: str, error_code: str | None) -> Attributes:
    return {"chatkit.state": state, **({"error.type": error_code} if error_code is not None else {})}


def statement(name: str) -> Attributes:
    return {"db.system.name": "postgresql", "db.operation.name": name}


def statements(number: int, milliseconds: int) -> Attributes:
    """The statements of a request or a turn, together."""
    return {"chatkit.statements": number, "chatkit.statement_ms": milliseconds}


def agent(name: str) -> Attributes:
    return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name, "openinference.span.kind": "AGENT"}


def model_call() -> Attributes:
    return {"gen_ai.operation.name": "chat", "openinference.span.kind": "LLM"}


def model(name: str) -> Attributes:
    return {"gen_ai.request.model": name, "llm.model_name": name}


def usage(input_tokens: int, output_tokens: int) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "llm.token_count.prompt": input_tokens,
        "llm.token_count.completion": output_tokens,
        "llm.token_count.total": input_tokens + output_tokens,
    }


def tool(name: str) -> Attributes:
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "tool.name": name,
        "openinference.span.kind": "TOOL",
    }


def guardrail(name: str, *, is_triggered: bool) -> Attributes:
    return {"chatkit.guardrail": name, "chatkit.triggered": is_triggered, "openinference.span.kind": "GUARDRAIL"}


def handoff(to_agent: str) -> Attributes:
    return {"gen_ai.agent.name": to_agent, "openinference.span.kind": "CHAIN"}
