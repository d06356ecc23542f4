"""What went wrong with a model becomes one truthful sentence, and whether trying again can help.

Looked at, in this order: the code that the provider gives, the kind of the error, and only then the words of its
message, for servers that have no codes. The message may quote a user, so words decide little, and none of them is told.
"""

import re
from typing import Any

from agents import MaxTurnsExceeded, ModelBehaviorError
from agents.exceptions import ModelTimeoutError
from openai import APIError, APIStatusError, ContentFilterFinishReasonError

from app.errors import (
    AnswerTooLong,
    ChatError,
    ContentRefused,
    ContextTooLong,
    ModelBusy,
    ModelMisconfigured,
    ModelQuotaUsedUp,
    ModelUnavailable,
)

_BY_CODE: dict[str, type[ChatError]] = {
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "content_filter": ContentRefused,
    "content_policy_violation": ContentRefused,
    "moderation_blocked": ContentRefused,
    "insufficient_quota": ModelQuotaUsedUp,
    "billing_hard_limit_reached": ModelQuotaUsedUp,
    "rate_limit_exceeded": ModelBusy,
    "overloaded_error": ModelBusy,
    "model_not_found": ModelMisconfigured,
    "invalid_api_key": ModelMisconfigured,
}
_BY_STATUS: dict[int, type[ChatError]] = {401: ModelMisconfigured, 403: ModelMisconfigured, 404: ModelMisconfigured}
_TOO_LONG = re.compile(
    r"maximum context length|context (window|length|size) (is )?(exceeded|of|limit)|exceeds? the (model's )?context"
    r"|prompt is too long|input is too long|exceeds the maximum number of (input )?tokens|contextwindowexceeded"
)
_QUOTA = re.compile(r"insufficient[_ ]quota|credit balance is too low|payment required")
_BUSY = re.compile(r"overloaded|at capacity|rate limit|too many requests")
# As the Agents SDK writes what ended a stream of the responses API.
_IN_STREAM = re.compile(r"code='?(\w+)|reason='?(\w+)")


def told_of(error: Exception) -> ChatError | None:
    """None for what is no trouble of a model's."""
    match error:
        case ContentFilterFinishReasonError():
            return ContentRefused()
        case MaxTurnsExceeded():
            return AnswerTooLong()
        case ModelTimeoutError():
            return ModelUnavailable()
        case ModelBehaviorError(message=message):
            # What it quotes may be anybody's words; only a code that ended a stream counts.
            is_end = message.startswith("Responses stream ended")
            codes = [code for pair in _IN_STREAM.findall(message) for code in pair if code] if is_end else []
            return next((_BY_CODE[code]() for code in codes if code in _BY_CODE), ModelUnavailable())
        case APIError():
            return _of_api(error)()
        case _:
            return None


def _of_api(error: APIError) -> type[ChatError]:
    by_code = next((_BY_CODE[code] for code in (error.code, error.type) if code in _BY_CODE), None)
    if by_code is not None:
        return by_code
    said = _message_of(error)
    status = error.status_code if isinstance(error, APIStatusError) else None
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 429:
        return ModelQuotaUsedUp if _QUOTA.search(said) else ModelBusy
    return _by_words(said, is_refusal=status is not None and 400 <= status < 500)


def _by_words(said: str, *, is_refusal: bool) -> type[ChatError]:
    if _TOO_LONG.search(said):
        return ContextTooLong
    if is_refusal:
        return ModelQuotaUsedUp if _QUOTA.search(said) else ModelMisconfigured
    # A server's own trouble, or a stream that broke off.
    return ModelBusy if _BUSY.search(said) else ModelUnavailable


def _message_of(error: APIError) -> str:
    body: Any = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return (said if isinstance(said, str) else error.message).lower()
