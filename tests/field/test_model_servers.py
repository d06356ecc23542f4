"""Our server in front of model servers from PyPI and npm, by both APIs: text, a tool, three turns, tokens, refusals."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.errors import error_of
from tests.conftest import query
from tests.faults.harness import SECRET, new_user
from tests.field.conftest import FieldServer
from tests.support.processes import ChatClient, ChatProcess, done_items, http, texts, thread_id_of

BOTH = ("responses", "chat_completions")


class Route(NamedTuple):
    """A model of a server, asked by one API."""

    server: str
    model: str
    api: str
    has_tools: bool = True
    counts: bool = True
    """Whether it says how many tokens each answer took."""


ROUTES = [
    *(Route("litellm", model, api) for model in ("straight", "bridge") for api in BOTH),
    Route("litellm", "mock", "chat_completions", has_tools=False),
    *(Route("litellm", "mock-of-both", api, has_tools=False, counts=False) for api in BOTH),
    *(Route("llmock", "any", api) for api in BOTH),
    *(Route("aimock", "any", api) for api in BOTH),
]


class Talk:
    def __init__(self, route: Route, server: FieldServer, process: ChatProcess, database: URL) -> None:
        self.route = route
        self.server = server
        self.process = process
        self.database = database

    def client(self, user: str) -> ChatClient:
        return ChatClient(self.process.base_url, mint(SECRET, user, seconds=3600))

    def usage(self, user: str) -> list[dict[str, int]]:
        """Of each turn of a user."""
        found = query(self.database, f"SELECT usage::text AS usage FROM chat_turns WHERE user_id = '{user}'")
        return [json.loads(row["usage"]) for row in found]

    def states(self, user: str) -> list[str]:
        found = query(self.database, f"SELECT state FROM chat_turns WHERE user_id = '{user}'")
        return [row["state"] for row in found]


@pytest.fixture(scope="module", params=ROUTES, ids=lambda route: f"{route.server}-{route.model}-{route.api}")
def talk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_database: URL
) -> Iterator[Talk]:
    route: Route = request.param
    server: FieldServer = request.getfixturevalue(route.server)
    process = ChatProcess(
        tmp_path_factory.mktemp("field"),
        DATABASE_URL=shared_database.render_as_string(hide_password=False),
        CHAT_JWT_SECRET=SECRET,
        OPENAI_BASE_URL=server.url,
        OPENAI_API_KEY=server.key,
        CHAT_MODEL=route.model,
        CHAT_MODEL_API=route.api,
        CHAT_MODEL_RETRIES="0",
        CHAT_ASSISTANT="chatkit_postgres.assistant.default:build",
    ).wait_until_ready()
    yield Talk(route, server, process, shared_database)
    assert process.stop() == 0


def answers(events: list[dict[str, Any]]) -> list[str]:
    assert [event for event in events if event["type"] == "error"] == []
    return texts([item for item in done_items(events) if item["type"] == "assistant_message"])


def test_three_turns_are_answered_and_counted(talk: Talk) -> None:
    user = new_user()
    client = talk.client(user)
    events = client.create("Hello there")
    thread_id = thread_id_of(events)
    replies = [
        answers(events),
        *(answers(client.post_message(thread_id, words)) for words in ("And now?", "And then?")),
    ]
    assert all(answer and answer[-1].strip() for answer in replies), replies
    kept = texts([item for item in client.items(thread_id) if item["type"] == "assistant_message"])
    assert kept == [text for answer in replies for text in answer]
    assert talk.states(user) == ["completed"] * 3
    if talk.route.counts:
        for usage in talk.usage(user):
            assert usage["input_tokens"] > 0, usage
            assert usage["output_tokens"] > 0, usage


def test_what_is_streamed_is_what_is_kept(talk: Talk) -> None:
    client = talk.client(new_user())
    events = client.create("Hello there")
    deltas = [event["update"]["delta"] for event in events if "delta" in event.get("update", {})]
    assert "".join(deltas) == "".join(answers(events))


def test_a_tool_is_called_and_its_output_answered(talk: Talk) -> None:
    if not talk.route.has_tools:
        return
    user = new_user()
    client = talk.client(user)
    asked = "Please use the tool current_time to say what time it is"
    if talk.route.server == "litellm":
        asked = "SCRIPT " + json.dumps({"words": 2, "tools": [["current_time", "{}"]], "note": user})
    events = client.create(asked)
    replies = answers(events)
    if talk.route.server == "litellm":
        assert replies == ["w0 w1 ", "Done."]
    elif talk.route.server == "aimock":
        assert replies[-1] == "The tool has answered."
    else:
        # It lists what it was asked, and so what the tool said: a time, which no description has.
        asked_for = http.get(f"{talk.server.url.removesuffix('/v1')}/_llmock/requests").text
        assert re.search(r"\d{4}, \d\d:\d\d UTC", asked_for)
    # The history with a call in it is taken, too.
    assert answers(client.post_message(thread_id_of(events), "Thank you"))


REFUSALS = {
    "litellm": [
        ("SCRIPT " + json.dumps({"status": 429}), "model_busy"),
        ("SCRIPT " + json.dumps({"status": 500}), "model_unavailable"),
        ("SCRIPT " + json.dumps({"words": 2, "then": "fail"}), "model_unavailable"),
    ],
    "aimock": [("Please fail", "model_busy")],
    "llmock": [],
}


def test_a_refusal_is_a_truthful_sentence(talk: Talk) -> None:
    is_mocked = talk.route.model.startswith("mock")
    for asked, code in () if is_mocked else REFUSALS[talk.route.server]:
        events = talk.client(new_user()).create(asked)
        (error,) = [event for event in events if event["type"] == "error"]
        assert error["message"] == error_of(code).message, asked


def test_what_failed_is_nowhere_an_error_of_ours(talk: Talk) -> None:
    """Last for each route."""
    failed = query(talk.database, "SELECT count(*) AS n FROM chat_turns WHERE error_code = 'internal_error'")
    assert failed[0]["n"] == 0
    log = Path(talk.process.log_path).read_text()
    assert "model_answer_unreadable" not in log
