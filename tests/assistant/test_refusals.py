"""What one refusal of a model teaches, and what it does not: nobody has less of a model for what another one sent."""

from typing import Any

import httpx2
import pytest
from agents.items import TResponseInputItem
from chatkit.agents import ThreadItemConverter
from openai import APIError, APIStatusError
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from chatkit_postgres.assistant.model_input.call_ids import CallIds
from chatkit_postgres.assistant.model_servers.provider_errors import ModelRefusal, user_facing_error
from chatkit_postgres.assistant.model_servers.refusals import Attempts, ModelMemory
from tests.support.items import user_message

REQUEST = httpx2.Request("POST", "https://model.example/v1")
PICTURE = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64," + "A" * 4_000_000}


def refused(status: int, message: str = "no", code: str | None = None) -> APIStatusError:
    body: Any = {"message": message, "code": code, "type": "invalid_request_error"}
    return APIStatusError(message, response=httpx2.Response(status, request=REQUEST), body=body)


def user(text: str, *more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": text}, *more]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def long_history(turns: int = 40) -> list[dict[str, Any]]:
    history = [item for n in range(turns) for item in (user(f"q{n} " + "x" * 1000), assistant("y" * 1000))]
    return [*history, user("now")]


TOO_LONG = refused(400, "maximum context length", "context_length_exceeded")
NOT_A_WINDOW: dict[str, tuple[list[dict[str, Any]], APIStatusError]] = {
    "a picture": ([user("look", PICTURE), assistant("nice"), user("and now?")], TOO_LONG),
    "a gateway": (long_history(), refused(413, "Request Entity Too Large")),
    "tokens a minute": (long_history(), refused(429, "Request too large for m on tokens per min (TPM): Limit 30000")),
    "a few words": ([user("a"), assistant("b"), user("c")], TOO_LONG),
}


@pytest.mark.parametrize("kind", NOT_A_WINDOW)
def test_what_says_nothing_of_the_window_is_not_remembered(kind: str) -> None:
    items, error = NOT_A_WINDOW[kind]
    memory = ModelMemory()
    attempts = Attempts(items, "m", memory)
    attempts.after(error)
    attempts.passed()
    assert memory.budget_of("m") is None


def test_a_window_is_remembered_as_large_as_what_it_took() -> None:
    memory = ModelMemory()
    attempts = Attempts(long_history(), "m", memory)
    attempts.after(TOO_LONG)
    attempts.passed()
    budget = memory.budget_of("m")
    assert budget is not None
    assert 40_000 < budget < 45_000
    assert Attempts(long_history(), "m", memory).items == attempts.items
    assert Attempts(long_history(), "other", memory).items == long_history()


SEES: dict[str, tuple[APIStatusError, bool]] = {
    "a policy": (refused(400, "Rejected.", "image_content_policy_violation"), False),
    "a broken one": (refused(400, "Broken.", "invalid_base64_image"), False),
    "none at all": (refused(400, "This model does not support image input"), True),
}


@pytest.mark.parametrize("kind", SEES)
def test_a_picture_that_is_refused_for_itself_says_nothing_of_others(kind: str) -> None:
    error, is_blind = SEES[kind]
    memory = ModelMemory()
    items = [user("look", PICTURE), assistant("nice"), user("and now?")]
    attempts = Attempts(items, "m", memory)
    attempts.after(error)
    attempts.passed()
    assert memory.is_blind("m") is is_blind
    # One that passes heals it.
    later = Attempts([user("another", PICTURE)], "m", memory)
    assert PICTURE in later.items[0]["content"]
    later.passed()
    assert not memory.is_blind("m")


SENTENCES: dict[str, tuple[list[dict[str, Any]], APIStatusError, str]] = {
    "long": ([user("x" * 20_000)], TOO_LONG, "context_too_long"),
    "short": ([user("Hi")], TOO_LONG, "model_misconfigured"),
    "a picture and a gateway": ([user("look", PICTURE)], refused(413, "Too Large"), "picture_refused"),
    "content": ([user("bad")], refused(400, "no", "content_filter"), "content_refused"),
    "a code": ([user("a")], refused(400, "no", "invalid_function_parameters"), "model_misconfigured"),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_the_newest_message_is_blamed_for_what_it_is(kind: str) -> None:
    items, error, code = SENTENCES[kind]
    attempts = Attempts([user("before"), assistant("yes"), *items], "m", ModelMemory())
    raised: APIError | None = None
    for _ in range(10):
        try:
            attempts.after(error)
        except APIError as last:
            raised = last
            break
    assert raised is not None
    shown = user_facing_error(raised)
    assert shown is not None
    assert shown.code == code


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_is_not_about_the_input_stays_the_providers_error(status: int) -> None:
    error = refused(status)
    with pytest.raises(APIStatusError) as raised:
        Attempts(long_history(), "m", ModelMemory()).after(error)
    assert raised.value is error
    assert not isinstance(raised.value, ModelRefusal)


def test_a_code_that_nobody_knows_is_a_reason() -> None:
    """The history has nothing to do with it, and is not left out in silence."""
    with pytest.raises(APIStatusError):
        Attempts(long_history(), "m", ModelMemory()).after(refused(400, "no", "unknown_parameter"))
    attempts = Attempts(long_history(), "m", ModelMemory())
    attempts.after(refused(400, "something in it"))
    assert attempts.items == [user("now")]


async def test_the_question_stays_whatever_converter_wrote_it() -> None:
    """The SDK's own writes a quotation as a message of the user."""
    message = user_message("t", "m", "MY QUESTION").model_copy(update={"quoted_text": "quoted"})
    given: list[TResponseInputItem] = await ThreadItemConverter().to_agent_input([message])
    for error in (refused(400, "no", "content_filter"), TOO_LONG):
        attempts = Attempts([user("Hi"), assistant("Hello"), *given], "m", ModelMemory())
        attempts.after(error)
        assert "MY QUESTION" in str(attempts.items)
        assert "Hello" not in str(attempts.items)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_at_the_head_stay(role: str) -> None:
    rules = {"role": role, "content": "RULES"}
    for error in (refused(400, "no", "content_filter"), TOO_LONG):
        attempts = Attempts([rules, *long_history()], "m", ModelMemory())
        attempts.after(error)
        assert attempts.items[0] == rules
        assert attempts.items[-1] == user("now")
        assert len(attempts.items) < len(long_history())


def test_items_may_be_the_clients_models() -> None:
    reply = ResponseOutputMessage(
        id="m",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputText(type="output_text", text="Hello", annotations=[])],
    )
    attempts = Attempts([user("Hi"), reply, user("now")], "m", ModelMemory())
    assert attempts.items[1]["content"][0]["text"] == "Hello"
    attempts.passed()
    attempts.after(refused(400, "no", "content_filter"))
    assert attempts.items == [user("now")]


def test_what_is_encoded_does_not_starve_what_is_said() -> None:
    picture = {"type": "image_generation_call", "id": "i", "status": "completed", "result": "A" * 2_000_000}
    output = {"type": "function_call_output", "call_id": "c", "output": "o" * 3000}
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    memory = ModelMemory()
    memory.remember_budget("m", 100_000)
    assert Attempts([user("q"), picture, call, output], "m", memory).items[-1] == output


def test_a_providers_conversation_gets_its_own_ids_back() -> None:
    ids = CallIds()
    ours = ids.issue("theirs")
    output = {"type": "function_call_output", "call_id": ours, "output": "x"}
    call = {"type": "function_call", "call_id": ours, "name": "f", "arguments": "{}"}
    assert ids.restored([output]) == [output | {"call_id": "theirs"}]
    assert ids.restored([call, output]) == [call, output]
