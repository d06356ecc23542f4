"""OpenAI's two APIs, against a scripted server: everything a model can say, and every way in which it can fail."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.errors import error_of
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import ChatClient, ChatProcess, ModelServer, done_items, message, texts, thread_id_of

APIS = ["responses", "chat_completions"]


class Talk:
    def __init__(self, process: ChatProcess, database: URL, model: ModelServer) -> None:
        self.process = process
        self.database = database
        self.model = model

    def client(self, user: str | None = None) -> ChatClient:
        return ChatClient(self.process.base_url, mint(SECRET, user or new_user(), seconds=3600))


@pytest.fixture(scope="module", params=[(api, kind) for api in APIS for kind in ("whole", "minimal")], ids="-".join)
def talk(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
) -> Iterator[Talk]:
    """With a server that sends every field, and with one that sends those alone that nobody can do without."""
    api, kind = request.param
    name = "minimal_model_server" if kind == "minimal" else "model_server"
    model_server: ModelServer = request.getfixturevalue(name)
    own = {"CHAT_MODEL_API": api, "CHAT_ASSISTANT": "chatkit_postgres.assistant.default:build"}
    own |= {"CHAT_MODEL_TIMEOUT_SECONDS": "1"}
    settings = environment(shared_database, model_server) | own
    process = ChatProcess(tmp_path_factory.mktemp("talk"), **settings).wait_until_ready()
    yield Talk(process, shared_database, model_server)
    assert process.stop() == 0


def script(**steps: Any) -> str:
    return "SCRIPT " + json.dumps({"note": new_user()} | steps)


def answers(events: list[dict[str, Any]]) -> list[str]:
    return texts([item for item in done_items(events) if item["type"] == "assistant_message"])


def test_text_arrives_word_by_word_under_an_id_of_ours(talk: Talk) -> None:
    events = talk.client().create(script(words=3))
    assert answers(events) == ["w0 w1 w2 "]
    deltas = [event["update"]["delta"] for event in events if "delta" in event.get("update", {})]
    assert "".join(deltas) == "w0 w1 w2 "
    assert all(item["id"].startswith("msg_") and len(item["id"]) == 36 for item in done_items(events))


def test_two_users_and_three_turns_are_six_distinct_answers(talk: Talk) -> None:
    """A server that gives every message one id must not make one answer of six."""
    names = [new_user(), new_user()]
    received: dict[str, str] = {}
    for name in names:
        client = talk.client(name)
        thread_id = thread_id_of(client.create(f"one of {name}"))
        for number in ("two", "three"):
            client.post_message(thread_id, f"{number} of {name}")
        items = [item for item in client.items(thread_id) if item["type"] == "assistant_message"]
        received |= {item["id"]: texts([item])[0] for item in items}
    assert len(received) == len(set(received.values())) == 6
    for count, word in enumerate(("one", "two", "three"), 1):
        for name in names:
            assert f"You said '{word} of {name}', and that is message {count} of yours." in received.values()


def test_tools_called_side_by_side_are_answered_together(talk: Talk) -> None:
    tools = [["current_time", "{}"], ["current_time", "{}"]]
    events = talk.client().create(script(words=1, tools=tools))
    assert answers(events) == ["w0 ", "Done."]
    bodies = [call["body"] for call in talk.model.calls()][-1]
    given = bodies.get("input") or bodies["messages"]
    outputs = [part for part in given if part.get("role") == "tool" or part.get("type") == "function_call_output"]
    ids = [output.get("call_id") or output["tool_call_id"] for output in outputs]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"[0-9A-Za-z]{9}", call_id) for call_id in ids)


def test_a_thought_is_shown_and_not_given_back_as_a_message(talk: Talk) -> None:
    client = talk.client()
    events = client.create(script(words=1, reasoning="Let me think."))
    kinds = [item["type"] for item in done_items(events)]
    assert kinds == ["user_message", "workflow", "assistant_message"]
    assert "Let me think." in json.dumps(done_items(events)[1])
    assert answers(client.post_message(thread_id_of(events), "And now?")) != []


def test_what_is_said_instead_of_an_answer_is_the_answer(talk: Talk) -> None:
    client = talk.client()
    events = client.create(script(refusal="I would rather not."))
    assert answers(events) == ["I would rather not."]
    assert [event for event in events if event["type"] == "error"] == []
    again = client.post_message(thread_id_of(events), "Why?")
    assert answers(again) == ["You said 'Why?', and that is message 2 of yours."]


def test_tokens_are_counted(talk: Talk) -> None:
    name = new_user()
    talk.client(name).create(script(words=1, tools=[["current_time", "{}"]]))
    (row,) = query(talk.database, f"SELECT usage FROM chat_turns WHERE user_id = '{name}'")
    usage = json.loads(row["usage"]) if isinstance(row["usage"], str) else row["usage"]
    # Two calls: the second one answers the tool.
    assert usage == {"input_tokens": 140, "cached_tokens": 40, "output_tokens": 100, "reasoning_tokens": 10}


@pytest.mark.parametrize("then", ["length", "filter"])
def test_so_are_those_of_an_answer_that_was_cut_off(talk: Talk, then: str) -> None:
    name = new_user()
    talk.client(name).create(script(words=2, then=then))
    (row,) = query(talk.database, f"SELECT usage FROM chat_turns WHERE user_id = '{name}'")
    usage = json.loads(row["usage"]) if isinstance(row["usage"], str) else row["usage"]
    assert usage == {"input_tokens": 70, "cached_tokens": 20, "output_tokens": 50, "reasoning_tokens": 5}


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "rate limit": ({"status": 429, "code": "rate_limit_exceeded"}, "model_busy"),
    "overloaded": ({"status": 503, "code": "", "message": "The engine is overloaded."}, "model_busy"),
    "quota": ({"status": 429, "code": "insufficient_quota"}, "model_quota_used_up"),
    "credit": ({"status": 400, "code": "", "message": "Your credit balance is too low."}, "model_quota_used_up"),
    "too long": ({"status": 400, "code": "context_length_exceeded"}, "context_too_long"),
    "too long for vllm": (
        {"status": 400, "code": "BadRequestError", "message": "This model's maximum context length is 8192 tokens."},
        "context_too_long",
    ),
    "too long for gemini": (
        {
            "status": 400,
            "code": "",
            "message": "The input token count exceeds the maximum number of tokens allowed.",
            "shape": "list",
        },
        "context_too_long",
    ),
    "too long, in a detail": (
        {"status": 400, "message": "The prompt is longer than the maximum model length of 8192", "shape": "detail"},
        "context_too_long",
    ),
    "overloaded, in plain words": (
        {"status": 503, "message": "Service is at capacity", "shape": "text"},
        "model_busy",
    ),
    "refused": ({"status": 400, "code": "content_filter"}, "content_refused"),
    "key": ({"status": 401, "code": "invalid_api_key"}, "model_misconfigured"),
    "model": ({"status": 404, "code": "model_not_found"}, "model_misconfigured"),
    "nonsense": ({"status": 400, "code": "invalid_request_error"}, "model_misconfigured"),
    "server": ({"status": 500}, "model_unavailable"),
    "gateway": ({"status": 502, "code": "", "message": "Bad gateway"}, "model_unavailable"),
    "broken off": ({"words": 2, "then": "cut"}, "model_unavailable"),
    "ended without an end": ({"words": 2, "then": "close"}, "model_unavailable"),
    "cut off": ({"words": 2, "then": "length"}, "answer_too_long"),
    "cut off before the first word": ({"then": "length"}, "answer_too_long"),
    "filtered": ({"words": 2, "then": "filter"}, "answer_filtered"),
    "filtered before the first word": ({"then": "filter"}, "content_refused"),
    "silent": ({"words": 2, "then": "hang"}, "model_unavailable"),
    "failed on the way": ({"words": 2, "then": "fail"}, "model_unavailable"),
    "too large for a minute, by groq": (
        {"status": 413, "code": "rate_limit_exceeded", "message": "Request too large for model m on tokens per minute"},
        "context_too_long",
    ),
    "a tool that is not there": ({"tools": [["no_such_tool", "{}"]]}, "model_mistaken"),
    "too fast on the way": ({"words": 2, "then": "fail", "code": "rate_limit_exceeded"}, "model_busy"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_is_one_truthful_sentence(talk: Talk, failure: str) -> None:
    name, (steps, code) = new_user(), FAILURES[failure]
    client = talk.client(name)
    # A few words are never too long.
    events = client.create(script(**steps) + " " * 2000 if code == "context_too_long" else script(**steps))
    received = error_of(code)
    (error,) = [event for event in events if event["type"] == "error"]
    assert (error["message"], error["allow_retry"]) == (received.message, received.allow_retry), failure
    assert "as the script says" not in json.dumps(events)
    (turn,) = query(talk.database, f"SELECT state, error_code FROM chat_turns WHERE user_id = '{name}'")
    assert (turn["state"], turn["error_code"]) == ("failed", code)
    # The thread takes the next message, and what was refused is not sent again.
    seen = 1 if code in {"content_refused", "context_too_long"} else 2
    expected = f"You said 'Hello', and that is message {seen} of yours."
    assert answers(client.post_message(thread_id_of(events), "Hello")) == [expected]
    assert "as the script says" not in talk.process.log


def test_the_log_says_what_a_provider_can_be_asked_about(talk: Talk) -> None:
    talk.client().create(script(status=400, code="unsupported_parameter", message="what nobody may read"))
    line = next(json.loads(line) for line in reversed(talk.process.log.splitlines()) if '"model_failed"' in line)
    received = {name: line[name] for name in ("shown", "status_code", "code", "provider_request_id")}
    assert received == {
        "shown": "model_misconfigured",
        "status_code": 400,
        "code": "unsupported_parameter",
        "provider_request_id": "req_scripted",
    }
    assert "what nobody may read" not in talk.process.log


@pytest.mark.parametrize("then", ["filter", "length", "close", "cut"])
def test_what_was_said_before_an_answer_ended_early_is_kept(talk: Talk, then: str) -> None:
    client = talk.client()
    thread_id = thread_id_of(client.create(script(words=2, then=then)))
    assert texts([item for item in client.items(thread_id) if item["type"] == "assistant_message"]) == ["w0 w1 "]


def test_stop_ends_the_models_stream(talk: Talk) -> None:
    client = talk.client()
    asked = script(words=500, delay=0.01)
    stream = client.stream("threads.create", input=message(asked))
    stream.wait_for_text(5)
    stream.disconnect()
    deadline = time.monotonic() + 10
    while True:
        call = next(call for call in talk.model.calls() if asked[8:-1] in json.dumps(call["body"]).replace('\\"', '"'))
        if call["ended"] is not None:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not call["finished"]
    assert len(call["sent"]) < 400


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("failure", "failures", "calls", "received"),
    [
        ({"status": 500}, 2, 3, []),
        ({"status": 500}, 3, 3, ["The assistant cannot be reached right now. Please try again."]),
        ({"status": 429, "retry_after": "0.1"}, 1, 2, []),
        # Nobody sits in front of a silent page for that long.
        ({"status": 429, "retry_after": "60"}, 1, 1, ["The assistant is very busy. Please try again in a moment."]),
    ],
    ids=["twice", "too often", "soon", "in a minute"],
)
def test_a_call_that_failed_before_its_answer_began_is_repeated(
    tmp_path: Path,
    shared_database: URL,
    model_server: ModelServer,
    api: str,
    failure: dict[str, Any],
    failures: int,
    calls: int,
    received: list[str],
) -> None:
    settings = environment(shared_database, model_server, CHAT_MODEL_RETRIES="2", CHAT_MODEL_API=api)
    process = ChatProcess(tmp_path, **settings).wait_until_ready()
    try:
        client = ChatClient(process.base_url, mint(SECRET, new_user(), seconds=60))
        asked = script(**failure, failures=failures, words=1)
        events = client.create(asked)
        assert answers(events) == ([] if received else ["w0 "])
        assert [event["message"] for event in events if event["type"] == "error"] == received
        note = json.loads(asked[7:])["note"]
        assert len([call for call in model_server.calls() if note in json.dumps(call["body"])]) == calls
    finally:
        process.stop()
