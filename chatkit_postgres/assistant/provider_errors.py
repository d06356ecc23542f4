"""Classifies a provider's error: one truthful sentence for the user, and whether a retry can help.

Classified by the provider's code, then by the status, then by the words of the message, for servers that have no codes.
Two messages come before that: "request too large" before the code, and a picture that is not taken before the status.
The message may quote a user, so words decide little, and none of them is told.
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
    ModelBusy,
    ModelMisconfigured,
    ModelMistaken,
    ModelQuotaUsedUp,
    ModelUnavailable,
    PictureRefused,
    TooManySteps,
)

_BY_CODE: dict[str, type[ChatError]] = {
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "request_too_large": ContextTooLong,
    # The reasons for which answers end early, by the two APIs.
    "max_output_tokens": AnswerTooLong,
    "length": AnswerTooLong,
    "invalid_prompt": ContentRefused,
    "image_content_policy_violation": PictureRefused,
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
# They say that something is wrong with a request, and not what.
_GENERIC = frozenset(
    {"400", "413", "415", "422", "badrequesterror", "bad_request", "bad_request_error", "error", "invalid_request"}
    | {"invalid_argument", "invalid_request_error", "server_error"}
)
# OpenAI's, of a response that failed.
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
    PictureRefused,
)
ABOUT_THE_INPUT = frozenset({400, 413, 415, 422})
"""Answers to a request in which something is not taken."""
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
# One request of more tokens than a minute may have: OpenAI (429) and Groq (413) give it the code of too many requests.
_NEVER_FITS = re.compile(r"request too large")
_QUOTA = re.compile(r"insufficient[_ ]quota|budget has been exceeded|credit balance is too low|payment required")
# LiteLLM's and Gemini's, who give it no code.
_REFUSED = re.compile(
    r"contentpolicyviolation|blocked (due to|by|for) (the )?(safety|content)|content management policy"
)
# Where there is a picture in the request: OpenAI, vLLM, llama.cpp, Ollama, OpenRouter, Groq, Mistral, DeepSeek.
_NO_PICTURES = re.compile(
    r"\b(image|images|image_url|vision|multi-?modal|mmproj|pictures?)\b|content must be a string|expected `?text`?"
    r"|input should be a valid string"
)
_BUSY = re.compile(r"overloaded|at capacity|rate limit|too many requests")
# As the Agents SDK writes what ended a stream of the responses API.
_IN_STREAM = re.compile(r"code='?(\w+)|reason='?(\w+)")


class ModelRefusal(APIError):
    """A refusal that was looked into. ``told`` is what its user is told."""

    def __init__(self, error: APIError, told: ChatError) -> None:
        super().__init__(error.message, error.request, body=error.body)
        self.told = told
        self.request_id = getattr(error, "request_id", None)
        self.status_code = getattr(error, "status_code", None)


def user_facing_error(error: Exception, *, has_pictures: bool = False) -> ChatError | None:
    """None for what is no trouble of a model's. ``has_pictures``: whether one was sent."""
    match error:
        case ModelRefusal(told=told):
            return told
        case ContentFilterFinishReasonError():
            return ContentRefused()
        case MaxTurnsExceeded():
            return TooManySteps()
        case ModelTimeoutError():
            return ModelUnavailable()
        case _:
            kind = _kind_of(error, has_pictures=has_pictures)
            return kind() if kind is not None else None


def _kind_of(error: Exception, *, has_pictures: bool) -> type[ChatError] | None:
    if isinstance(error, ModelBehaviorError):
        return _of_behaviour(error.message)
    if not isinstance(error, APIError):
        return None
    kind = _of_api(error, has_pictures=has_pictures)
    return kind if isinstance(error, APIStatusError) else _of_answer(kind)


def _of_behaviour(message: str) -> type[ChatError]:
    # What it quotes may be anybody's words; only a code that ended a stream counts.
    if not message.startswith("Responses stream ended"):
        return ModelMistaken
    codes = [code for pair in _IN_STREAM.findall(message) for code in pair if code]
    return _of_answer(next((_BY_CODE[code] for code in codes if code in _BY_CODE), ModelUnavailable))


def _of_answer(kind: type[ChatError]) -> type[ChatError]:
    """What ends an answer that has begun was not said of the question."""
    return AnswerFiltered if kind is ContentRefused else kind


def has_code(error: APIError) -> bool:
    """Whether the provider has told by a code what is wrong."""
    return any(code.lower() not in _GENERIC for code in _words_of(error)[0])


def _of_api(error: APIError, *, has_pictures: bool) -> type[ChatError]:
    codes, said = _words_of(error)
    status = error.status_code if isinstance(error, APIStatusError) else None
    if status in {413, 429} and _NEVER_FITS.match(said):
        return ContextTooLong
    by_code = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if by_code is not None:
        return by_code
    # llama.cpp answers 500.
    if has_pictures and (status in {404, 500} or status in ABOUT_THE_INPUT) and _NO_PICTURES.search(said):
        return ContextTooLong if _TOO_LONG.search(said) else PictureRefused
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 429:
        return ModelQuotaUsedUp if _QUOTA.search(said) else ModelBusy
    return _by_words(said, is_refusal=status is not None and 400 <= status < 500)


def _by_words(said: str, *, is_refusal: bool) -> type[ChatError]:
    if _TOO_LONG.search(said):
        return ContextTooLong
    if is_refusal and _REFUSED.search(said):
        return ContentRefused
    if is_refusal:
        return ModelQuotaUsedUp if _QUOTA.search(said) else ModelMisconfigured
    # A server's own trouble, or a stream that broke off.
    return ModelBusy if _BUSY.search(said) else ModelUnavailable


def _words_of(error: APIError) -> tuple[list[str], str]:
    """The codes and the message, in lower case, wherever a server has put them: OpenAI in ``error``, which the client
    takes off; Gemini in a list; others in ``error`` or ``detail`` as a text, or in no JSON at all."""
    body: Any = error.body
    if isinstance(body, str):
        # The client reads no JSON behind a byte-order mark.
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
    said = next((said for said in (body.get("message"), body.get("detail")) if isinstance(said, str)), error.message)
    return codes, said.lower()
