"""What Phoenix shows of a conversation: it reads the outermost span of each trace."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.field.conftest import started
from tests.support.processes import ChatClient, ChatProcess, ModelServer, eventually, http, message, thread_id_of

SESSIONS = """{ projects { edges { node { sessions(first: 100) { edges { node {
    sessionId userId numTraces numTracesWithError
    firstInput { value } lastOutput { value } tokenUsage { prompt completion }
} } } } } } }"""
"""As its page asks for the table of sessions."""
PROMPT_TOKENS, COMPLETION_TOKENS = 70, 50
"""The scripted model says that each of its calls used them."""


@pytest.fixture(scope="module")
def phoenix(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("phoenix")
    own = {"PHOENIX_WORKING_DIR": str(directory), "PHOENIX_HOST": "127.0.0.1", "PHOENIX_TELEMETRY_ENABLED": "false"}
    # Its second port, which is not used here.
    own |= {"PHOENIX_GRPC_PORT": "0"}
    command = ("/usr/bin/env", "PHOENIX_PORT={port}", installed / "phoenix/bin/phoenix", "serve")
    with started(directory, "/healthz", *command, **own) as address:
        yield address


def shown(phoenix: str) -> list[dict[str, Any]]:
    answer = http.post(f"{phoenix}/graphql", json={"query": SESSIONS}).json()
    assert "errors" not in answer, json.dumps(answer)
    projects = [edge["node"] for edge in answer["data"]["projects"]["edges"]]
    return [edge["node"] for project in projects for edge in project["sessions"]["edges"]]


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
def test_a_thread_is_a_session_with_what_was_said(
    phoenix: str, database_url: URL, model_server: ModelServer, tmp_path: Path, api: str
) -> None:
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": phoenix, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    more = {"CHAT_TRACE_CONTENT": "true", "CHAT_MODEL_API": api, **collector}
    server = ChatProcess(tmp_path, **environment(database_url, model_server, **more)).wait_until_ready()
    user = new_user()
    client = ChatClient(server.base_url, mint(SECRET, user, seconds=600))
    first = client.events("threads.create", input=message("What is a fjord?"))
    thread_id = thread_id_of(first)
    second = client.events("threads.add_user_message", thread_id=thread_id, input=message("And a bay?"))
    assert server.stop() == 0
    (said,) = [
        event["item"]["content"][0]["text"]
        for event in second
        if event["type"] == "thread.item.done" and event["item"]["type"] == "assistant_message"
    ]

    def session() -> dict[str, Any]:
        return next((one for one in shown(phoenix) if one["sessionId"] == thread_id), {})

    # It stores a trace's spans one after the other.
    eventually(lambda: session().get("lastOutput") == {"value": said}, what="Phoenix shows the second answer")
    eventually(lambda: session()["tokenUsage"]["prompt"] == 2 * PROMPT_TOKENS, what="Phoenix counts the tokens")
    assert session() == {
        "sessionId": thread_id,
        "userId": user,
        "numTraces": 2,
        "numTracesWithError": 0,
        "firstInput": {"value": "What is a fjord?"},
        "lastOutput": {"value": said},
        "tokenUsage": {"prompt": 2 * PROMPT_TOKENS, "completion": 2 * COMPLETION_TOKENS},
    }
