"""What providers really say, and what becomes of it."""

from typing import Any

import httpx2
import pytest
from agents import MaxTurnsExceeded, ModelBehaviorError
from openai import APIConnectionError, APIError, APIStatusError

from chatkit_postgres.assistant.model_servers.provider_errors import user_facing_error
from chatkit_postgres.errors import ChatError

REQUEST = httpx2.Request("POST", "https://model.example/v1")


def answered(status: int, message: str, code: str | None = None, kind: str | None = None) -> Exception:
    body: Any = {"message": message, "code": code, "type": kind}
    return APIStatusError(message, response=httpx2.Response(status, request=REQUEST), body=body)


SAID: dict[str, tuple[Exception, str]] = {
    "openai, requests a minute": (
        answered(429, "Rate limit reached. Visit https://platform.example/account/billing", "rate_limit_exceeded"),
        "model_busy",
    ),
    "openai, quota": (answered(429, "You exceeded your current quota.", "insufficient_quota"), "model_quota_used_up"),
    "groq, tokens a minute": (
        answered(429, "on tokens per minute (TPM): Limit 6000, Used 5900. Need more tokens?", "rate_limit_exceeded"),
        "model_busy",
    ),
    "gemini, requests a minute": (
        answered(429, "You exceeded your current quota, please check your plan and billing. Retry in 12s."),
        "model_busy",
    ),
    "an unsupported parameter": (
        answered(400, "'max_tokens' is not supported with this model.", "unsupported_parameter"),
        "model_misconfigured",
    ),
    "a key": (answered(401, "Incorrect API key. See /account/billing"), "model_misconfigured"),
    "a message that quotes a user": (
        answered(400, "Invalid 'messages': 'What is your content policy? My quota? too many requests'"),
        "model_misconfigured",
    ),
    "too long for anthropic": (answered(400, "prompt is too long: 210000 tokens > 200000"), "context_too_long"),
    "too long for llama.cpp": (
        answered(400, "the request exceeds the available context size, try increasing it"),
        "context_too_long",
    ),
    "too long for litellm": (answered(400, "ContextWindowExceededError: ..."), "context_too_long"),
    "too long for llama.cpp, by its kind": (answered(400, "n", kind="exceed_context_size_error"), "context_too_long"),
    "too long for vllm": (answered(400, "The prompt is longer than the maximum model length"), "context_too_long"),
    "too long for a proxy": (answered(413, "Request Entity Too Large"), "context_too_long"),
    "more tokens than a minute may ever have": (
        answered(
            429, "Request too large for m on tokens per min (TPM): Limit 30000, Requested 41000.", "rate_limit_exceeded"
        ),
        "context_too_long",
    ),
    "more than a minute may ever have, by groq": (
        answered(413, "Request too large for model m on tokens per minute (TPM): Limit 6000", "rate_limit_exceeded"),
        "context_too_long",
    ),
    "litellm, a policy": (
        answered(400, "litellm.ContentPolicyViolationError: AzureException - The response was filtered", "400"),
        "content_refused",
    ),
    "gemini, safety": (answered(400, "The request was blocked due to safety."), "content_refused"),
    "litellm, a budget": (
        answered(400, "Budget has been exceeded! Current cost: 5.0, Max budget: 5.0", kind="budget_exceeded"),
        "model_quota_used_up",
    ),
    "gemini's list": (
        APIStatusError(
            "Error code: 400",
            response=httpx2.Response(400, request=REQUEST),
            body=[{"error": {"code": 400, "message": "The input token count exceeds the maximum number of tokens"}}],
        ),
        "context_too_long",
    ),
    "a text for an error": (
        APIStatusError("x", response=httpx2.Response(400, request=REQUEST), body={"error": "prompt is too long"}),
        "context_too_long",
    ),
    "behind a byte-order mark": (
        APIStatusError(
            "x",
            response=httpx2.Response(400, request=REQUEST),
            body='\ufeff{"error": {"message": "m", "code": "content_filter"}}',
        ),
        "content_refused",
    ),
    "a page of a gateway": (
        APIStatusError("x", response=httpx2.Response(502, request=REQUEST), body="<html>Bad gateway</html>"),
        "model_unavailable",
    ),
    "an empty list": (
        APIStatusError("x", response=httpx2.Response(400, request=REQUEST), body=[]),
        "model_misconfigured",
    ),
    "a prompt that is refused": (answered(400, "Invalid prompt", "invalid_prompt"), "content_refused"),
    "no credit, by status": (answered(402, "Insufficient Balance"), "model_quota_used_up"),
    "too slow for the server": (answered(408, "Request timeout"), "model_unavailable"),
    "no credit": (answered(400, "Your credit balance is too low."), "model_quota_used_up"),
    "overloaded": (answered(529, "Overloaded", kind="overloaded_error"), "model_busy"),
    "a gateway": (answered(502, "Bad gateway"), "model_unavailable"),
    "no connection": (APIConnectionError(request=REQUEST), "model_unavailable"),
    "in the stream": (APIError("x", REQUEST, body={"code": "rate_limit_exceeded"}), "model_busy"),
    "out of memory": (APIError("out of memory", REQUEST, body="out of memory"), "model_unavailable"),
    "a tool that is not there": (
        ModelBehaviorError("Tool show_billing not found in agent Shop"),
        "model_mistaken",
    ),
    "arguments that are no JSON": (
        ModelBehaviorError("Invalid JSON when parsing {content_filter: insufficient_quota"),
        "model_mistaken",
    ),
    "a failed response": (
        ModelBehaviorError(
            "Responses stream ended with terminal event `response.failed`. status=failed; "
            "error=ResponseError(code='rate_limit_exceeded', message='x')."
        ),
        "model_busy",
    ),
    "a filtered response": (
        ModelBehaviorError(
            "Responses stream ended with terminal event `response.incomplete`. status=incomplete; "
            "incomplete_details=IncompleteDetails(reason='content_filter')."
        ),
        "answer_filtered",
    ),
    "a response that was cut off": (
        ModelBehaviorError(
            "Responses stream ended with terminal event `response.incomplete`. status=incomplete; "
            "incomplete_details=IncompleteDetails(reason='max_output_tokens')."
        ),
        "answer_too_long",
    ),
    "too many calls": (MaxTurnsExceeded("20"), "too_many_steps"),
}


@pytest.mark.parametrize("message", SAID)
def test_an_error_is_told_as_what_it_is(message: str) -> None:
    error, code = SAID[message]
    shown = user_facing_error(error)
    assert isinstance(shown, ChatError)
    assert shown.code == code


def test_what_is_no_trouble_of_a_models_is_left_alone() -> None:
    for error in (ValueError("rate limit"), RuntimeError("insufficient_quota"), KeyError("content_filter")):
        assert user_facing_error(error) is None


NO_PICTURES: dict[str, Exception] = {
    "openai": answered(400, "Invalid content type. image_url is only supported by certain models."),
    "openai, a broken one": answered(400, "You uploaded an unsupported image.", "invalid_image_format"),
    "openai, a policy": answered(400, "Rejected by the safety system.", "image_content_policy_violation"),
    "vllm": answered(400, "At most 0 image(s) may be provided in one prompt."),
    "llama.cpp": answered(500, "image input is not supported - hint: you may need to provide the mmproj"),
    "ollama": answered(400, "this model is missing data required for image input"),
    "openrouter": answered(404, "No endpoints found that support image input"),
    "groq": answered(400, "'messages.0' : for 'role:user' the following must be satisfied: content must be a string"),
    "deepseek": answered(422, "Failed to deserialize: unknown variant `image_url`, expected `text`"),
    "mistral": answered(400, "Vision input is not enabled for this model"),
    "anthropic": answered(400, "messages.0.content.1.image.source: image exceeds 5 MB maximum"),
}


@pytest.mark.parametrize("provider", NO_PICTURES)
def test_a_picture_that_is_not_taken_is_said_where_one_was_sent(provider: str) -> None:
    shown = user_facing_error(NO_PICTURES[provider], has_images=True)
    assert shown is not None
    assert shown.code == "picture_refused"
    has_code = "invalid_image" in str(NO_PICTURES[provider].body) or "policy" in provider  # type: ignore[attr-defined]
    without: Any = user_facing_error(NO_PICTURES[provider])
    assert (without.code == "picture_refused") is has_code
