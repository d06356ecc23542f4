"""An agent asks the browser: the answer is taken after a restart, and what was under way goes on."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from app.auth.tokens import mint
from tests.faults.harness import SECRET, environment
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, texts, thread_id_of


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_a_client_tool_is_answered_after_a_restart_and_its_workflow_goes_on(
    tmp_path: Path, database_url: URL, model_server: ModelServer, api: str
) -> None:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tool", "CHAT_MODEL_API": api}
    settings = environment(database_url, model_server) | own
    first = ChatProcess(tmp_path, **settings).wait_until_ready()
    token = mint(SECRET, "alice", seconds=600)
    created = ChatClient(first.base_url, token).create("use the tool look_at_page {}")
    thread_id = thread_id_of(created)
    assert [item["type"] for item in done_items(created)] == ["user_message", "assistant_message", "client_tool_call"]
    assert first.stop() == 0
    second = ChatProcess(tmp_path, **settings).wait_until_ready()
    try:
        client = ChatClient(second.base_url, token)
        before = client.items(thread_id)
        kinds = [item["type"] for item in before]
        assert sorted(kinds[:-1]) == ["assistant_message", "user_message", "workflow"]
        assert (before[3]["name"], before[3]["status"]) == ("get_page_title", "pending")
        answered = client.events("threads.add_client_tool_output", thread_id=thread_id, result={"title": "A page"})
        *continued, answer = done_items(answered)
        # The SDK takes up a workflow that stands right before the call. With chat completions the message may end
        # after the workflow has begun, and stand between them.
        if kinds[2] == "workflow":
            assert [(item["id"], item["type"]) for item in continued] == [(before[2]["id"], "workflow")]
        assert texts([answer]) == ["The tool has answered."]
        after = client.items(thread_id)
        assert [item["id"] for item in after[:4]] == [item["id"] for item in before]
        assert (after[3]["status"], after[3]["output"]) == ("completed", {"title": "A page"})
        # The model was given the call with its output.
        body = model_server.calls()[-1]["body"]
        assert '{"title": "A page"}' in str(body.get("messages") or body.get("input")).replace("\\\\", "")
        again = client.post("threads.add_client_tool_output", thread_id=thread_id, result={"title": "Another"})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
    finally:
        assert second.stop() == 0
