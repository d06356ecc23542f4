"""Classifies a provider's error: one truthful sentence for the user, and whether a retry can help.

An error is classified by the provider's code, then by the status, then by the text of the message, for servers without
codes. Two messages take precedence: "request too large" over the code, and a refused image over the status. The message
may quote a user, so its text decides little and is never sent to a client.
"""

import json
import re
from contextlib import suppress
from typing import Any

from agents import MaxTurnsExceeded, ModelBehaviorError
from agents.exceptions import ModelTimeoutError
from openai import APIError, APIStatusError, ContentFilterFinishReasonError

from chatkit_postgres.errors import (
    AnswerFiltered,
    AnswerTooLong,
    ChatError,
    ContentRefused,
    ContextTooLong,
    ImageRefused,
    ModelBusy,
    ModelMisconfigured,
    ModelMistaken,
    ModelQuotaUsedUp,
    ModelUnavailable,
    TooManySteps,
)

_BY_CODE: dict[str, type[ChatError]] = {
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "request_too_large": ContextTooLong,
    # Reasons for truncated answers, in the two APIs.
    "max_output_tokens": AnswerTooLong,
    "length": AnswerTooLong,
    "invalid_prompt": ContentRefused,
    "image_content_policy_violation": ImageRefused,
    "content_filter": ContentRefused,
    "content_policy_violation": ContentRefused,
    "moderation_blocked": ContentRefused,
    # LiteLLM's.
    "budget_exceeded": ModelQuotaUsedUp,
    "insufficient_quota": ModelQuotaUsedUp,
    "billing_hard_limit_reached": ModelQuotaUsedUp,
    "rate_limit_exceeded": ModelBusy,
    "overloaded_error": ModelBusy,
    "unsupported_parameter": ModelMisconfigured,
    "model_not_found": ModelMisconfigured,
    "invalid_api_key": ModelMisconfigured,
}
# Codes that do not name the cause.
_GENERIC = frozenset(
    {"400", "413", "415", "422", "badrequesterror", "bad_request", "bad_request_error", "error", "invalid_request"}
    | {"invalid_argument", "invalid_request_error", "server_error"}
)
# OpenAI's codes of a failed response.
_BY_CODE |= dict.fromkeys(
    (
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "unsupported_image_media_type",
    ),
    ImageRefused,
)
ABOUT_THE_INPUT = frozenset({400, 413, 415, 422})
"""Statuses of responses to a request with unacceptable input."""
_BY_STATUS: dict[int, type[ChatError]] = {
    401: ModelMisconfigured,
    402: ModelQuotaUsedUp,
    403: ModelMisconfigured,
    404: ModelMisconfigured,
    408: ModelUnavailable,
    409: ModelUnavailable,
    413: ContextTooLong,
    425: ModelUnavailable,
    499: ModelUnavailable,
}
_TOO_LONG = re.compile(
    r"maximum context length|maximum model length|context (window|length|size) (is )?(exceeded|of|limit)"
    r"|exceeds? (the )?((model's|available) )?context"
    r"|prompt is too long|input is too long|exceeds the maximum number of (input )?tokens|contextwindowexceeded"
)
# A request with more tokens than the limit per minute, for which OpenAI (429) and Groq (413) send a rate-limit code.
_NEVER_FITS = re.compile(r"request too large")
_QUOTA = re.compile(r"insufficient[_ ]quota|budget has been exceeded|credit balance is too low|payment required")
# Of LiteLLM and Gemini, which send no code for a refusal.
_REFUSED = re.compile(
    r"contentpolicyviolation|blocked (due to|by|for) (the )?(safety|content)|content management policy"
)
# For a request with an image: OpenAI, vLLM, llama.cpp, Ollama, OpenRouter, Groq, Mistral, DeepSeek.
_NO_IMAGES = re.compile(
    r"\b(image|images|image_url|vision|multi-?modal|mmproj|pictures?)\b|content must be a string|expected `?text`?"
    r"|input should be a valid string"
)
_BUSY = re.compile(r"overloaded|at capacity|rate limit|too many requests")
# In the message of the Agents SDK about the end of a stream of the responses API.
_IN_STREAM = re.compile(r"code='?(\w+)|reason='?(\w+)")


class ModelRefusal(APIError):
    """A refusal whose cause is known; ``user_error`` is the error that the user reads."""

    def __init__(self, error: APIError, user_error: ChatError) -> None:
        super().__init__(error.message, error.request, body=error.body)
        self.user_error = user_error
        self.request_id = getattr(error, "request_id", None)
        self.status_code = getattr(error, "status_code", None)


def user_facing_error(error: Exception, *, has_images: bool = False) -> ChatError | None:
    """None for an error that is not a model's. ``has_images``: whether the request had an image."""
    match error:
        case ModelRefusal(user_error=user_error):
            return user_error
        case ContentFilterFinishReasonError():
            return ContentRefused()
        case MaxTurnsExceeded():
            return TooManySteps()
        case ModelTimeoutError():
            return ModelUnavailable()
        case _:
            kind = _kind_of(error, has_images=has_images)
            return kind() if kind is not None else None


def _kind_of(error: Exception, *, has_images: bool) -> type[ChatError] | None:
    if isinstance(error, ModelBehaviorError):
        return _of_behaviour(error.message)
    if not isinstance(error, APIError):
        return None
    kind = _of_api(error, has_images=has_images)
    return kind if isinstance(error, APIStatusError) else _of_answer(kind)


def _of_behaviour(message: str) -> type[ChatError]:
    # The message may quote anybody's text, so only a code that ended a stream counts.
    if not message.startswith("Responses stream ended"):
        return ModelMistaken
    codes = [code for pair in _IN_STREAM.findall(message) for code in pair if code]
    return _of_answer(next((_BY_CODE[code] for code in codes if code in _BY_CODE), ModelUnavailable))


def _of_answer(kind: type[ChatError]) -> type[ChatError]:
    """A refusal after the start of an answer is about the answer, not about the message."""
    return AnswerFiltered if kind is ContentRefused else kind


def has_code(error: APIError) -> bool:
    """Whether the provider's code names the cause."""
    return any(code.lower() not in _GENERIC for code in _codes_and_message(error)[0])


def _of_api(error: APIError, *, has_images: bool) -> type[ChatError]:
    codes, message = _codes_and_message(error)
    status = error.status_code if isinstance(error, APIStatusError) else None
    if status in {413, 429} and _NEVER_FITS.match(message):
        return ContextTooLong
    by_code = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if by_code is not None:
        return by_code
    # llama.cpp answers 500.
    if has_images and (status in {404, 500} or status in ABOUT_THE_INPUT) and _NO_IMAGES.search(message):
        return ContextTooLong if _TOO_LONG.search(message) else ImageRefused
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 429:
        return ModelQuotaUsedUp if _QUOTA.search(message) else ModelBusy
    return _by_message(message, is_refusal=status is not None and 400 <= status < 500)


def _by_message(message: str, *, is_refusal: bool) -> type[ChatError]:
    if _TOO_LONG.search(message):
        return ContextTooLong
    if is_refusal and _REFUSED.search(message):
        return ContentRefused
    if is_refusal:
        return ModelQuotaUsedUp if _QUOTA.search(message) else ModelMisconfigured
    # A failure of the server, or a broken stream.
    return ModelBusy if _BUSY.search(message) else ModelUnavailable


def _codes_and_message(error: APIError) -> tuple[list[str], str]:
    """The codes and the message, in lower case, from where servers put them: OpenAI in ``error``, which the client
    unwraps; Gemini in a list; others as a string in ``error`` or ``detail``, or without any JSON."""
    body: Any = error.body
    if isinstance(body, str):
        # The client parses no JSON after a byte-order mark.
        with suppress(ValueError):
            body = json.loads(body.removeprefix("\ufeff"))
    if isinstance(body, list):
        body = body[0] if body else None
    if isinstance(body, dict) and isinstance(body.get("error"), dict | str):
        body = body["error"]
    if isinstance(body, str):
        return [], body.lower()
    if not isinstance(body, dict):
        return [], error.message.lower()
    codes = [code for code in (body.get("code"), body.get("type")) if isinstance(code, str)]
    texts = (body.get("message"), body.get("detail"))
    message = next((text for text in texts if isinstance(text, str)), error.message)
    return codes, message.lower()
