"""A function tool that raises: what its people read in the log, and what the user is told. Over a socket."""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, texts


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    model_server: ModelServer,
) -> Iterator[ChatProcess]:
    own = {"CHAT_MODEL_API": request.param, "CHAT_ASSISTANT": "tests.support.assistants:build_with_broken_tools"}
    settings = environment(shared_database, model_server) | own
    process = ChatProcess(tmp_path_factory.mktemp("broken"), **settings).wait_until_ready()
    yield process
    assert process.stop() == 0


def script(*tools: tuple[str, dict[str, str]]) -> str:
    return "SCRIPT " + json.dumps({"tools": [(name, json.dumps(arguments)) for name, arguments in tools]})


def client(server: ChatProcess) -> ChatClient:
    return ChatClient(server.base_url, mint(SECRET, new_user(), seconds=3600))


def test_a_mistake_in_a_tool_is_in_the_log_by_type_and_place_and_the_model_goes_on(server: ChatProcess) -> None:
    events = client(server).create(script(("broken", {"words": "ORCHID"})))
    assert [event for event in events if event["type"] == "error"] == []
    assert texts(done_items(events))[-1] == "Done."
    (failed,) = [json.loads(line) for line in server.log.splitlines() if "tool_failed" in line]
    assert (failed["tool"], failed["error"]) == ("broken", "KeyError")
    assert "assistants.py" in failed["at"][-1]
    # What a conversation says is in no log, and what an exception says may be from it.
    assert "ORCHID" not in server.log


def test_what_a_tool_raises_for_the_user_is_told_to_the_user(server: ChatProcess) -> None:
    user = client(server)
    events = user.create(script(("for_the_user", {"words": "The stars are out."}), ("look_up", {"what": "stars"})))
    (error,) = [event for event in events if event["type"] == "error"]
    assert (error["message"], error["allow_retry"]) == ("The stars are out.", True)
    assert "Done." not in texts(done_items(events))
    # And the conversation goes on.
    (thread_id,) = {event["thread"]["id"] for event in events if event["type"] == "thread.created"}
    assert len(done_items(user.post_message(thread_id, "Hello"))) == 2


def test_so_is_what_a_tool_of_an_agent_raises_that_is_a_tool_itself(server: ChatProcess) -> None:
    inner = script(("for_the_user", {"words": "Your card was refused."}))
    events = client(server).create(script(("ask_another", {"input": inner})))
    (error,) = [event for event in events if event["type"] == "error"]
    assert error["message"] == "Your card was refused."
