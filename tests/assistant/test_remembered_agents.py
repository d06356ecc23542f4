"""With ``remember_agent``, the next message goes to the agent that spoke last: over sockets, by both APIs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, handoff
from sqlalchemy import URL

from chatkit_postgres.assistant.handoffs import find_agent
from chatkit_postgres.auth.tokens import mint
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import ChatClient, ChatProcess, ModelServer, thread_id_of


@pytest.fixture(params=["responses", "chat_completions"])
def settings(request: pytest.FixtureRequest, shared_database: URL, model_server: ModelServer) -> dict[str, str]:
    return environment(shared_database, model_server) | {"CHAT_MODEL_API": request.param}


@contextmanager
def served(directory: Path, settings: dict[str, str], user: str, build: str) -> Iterator[ChatClient]:
    named = settings | {"CHAT_ASSISTANT": f"tests.support.assistants:{build}"}
    process = ChatProcess(directory, **named).wait_until_ready()
    yield ChatClient(process.base_url, mint(SECRET, user, seconds=3600))
    assert process.stop() == 0


def transfer_to(name: str) -> str:
    return "SCRIPT " + json.dumps({"words": 0, "tools": [[f"transfer_to_{name}", "{}"]], "note": new_user()})


def asked(model: ModelServer, words: str) -> str:
    """The instructions with which a message was answered for the first time."""
    bodies: list[Any] = [call["body"] for call in model.calls() if words in json.dumps(call["body"])]
    return str(bodies[0].get("instructions") or bodies[0]["messages"][0]["content"])


def test_the_agent_that_spoke_last_answers_the_next_message(
    tmp_path: Path, settings: dict[str, str], model_server: ModelServer
) -> None:
    user = new_user()
    with served(tmp_path, settings, user, "build_handing_over") as client:
        thread_id = thread_id_of(client.create(transfer_to("painter")))
        other = thread_id_of(client.create(transfer_to("plumber")))
    # After a restart, and in each thread for itself.
    with served(tmp_path, settings, user, "build_handing_over") as client:
        for thread, agent in ((thread_id, "painter"), (other, "plumber")):
            words = new_user()
            client.post_message(thread, words)
            assert asked(model_server, words) == f"You are the {agent}."
        fresh = new_user()
        client.create(fresh)
        assert asked(model_server, fresh) == "You are the reception."
        # It hands back, and a retry of that message asks who answered before it.
        back = transfer_to("reception")
        message_id = next(item["id"] for item in reversed(client.items(thread_id)) if item["type"] == "user_message")
        client.post_message(thread_id, back)
        assert asked(model_server, json.loads(back[7:])["note"]) == "You are the painter."
        words = new_user()
        client.post_message(thread_id, words)
        assert asked(model_server, words) == "You are the reception."
        before = len(model_server.calls())
        client.stream("threads.retry_after_item", thread_id=thread_id, item_id=message_id).wait()
        (again,) = [call["body"] for call in model_server.calls()[before:]]
        assert "You are the painter." in json.dumps(again)
    with served(tmp_path, settings, user, "build_forgetting") as client:
        words = new_user()
        client.post_message(other, words)
        assert asked(model_server, words) == "You are the reception."


def test_an_agent_is_found_by_its_name_among_those_that_can_be_reached() -> None:
    last = Agent[Any](name="Last")
    second = Agent[Any](name="Second", handoffs=[handoff(last)])
    first = Agent[Any](name="First", handoffs=[second])
    last.handoffs = [first]
    twin = Agent[Any](name="Second")
    assert [find_agent(first, name) for name in ("First", "Second", "Last", "Renamed")] == [first, second, last, None]
    first.handoffs = [twin, second]
    assert find_agent(first, "Second") is twin
