"""What went wrong with a model becomes one truthful sentence, and whether trying again can help."""

import re

from agents import MaxTurnsExceeded, ModelBehaviorError
from agents.exceptions import ModelTimeoutError
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ContentFilterFinishReasonError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

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

# By the codes of OpenAI, and by the words of servers that have no codes: vLLM, LiteLLM, Gemini, Ollama, Anthropic.
_SAID: tuple[tuple[type[ChatError], re.Pattern[str]], ...] = (
    (
        ContextTooLong,
        re.compile(
            r"context_length_exceeded|context.?window|context.?length|context.?size|too many tokens|prompt is too long"
            r"|(exceeds?|exceeded|maximum|max).{0,40}(number of )?(input )?tokens|input (is )?too long"
        ),
    ),
    (
        ContentRefused,
        re.compile(r"content_filter|content_policy|content (management )?policy|moderation_blocked|safety system"),
    ),
    (
        ModelQuotaUsedUp,
        re.compile(r"insufficient_quota|exceeded your current quota|billing|credit balance|payment required"),
    ),
    (ModelBusy, re.compile(r"rate_limit|rate limit|too many requests|overloaded|resource.?exhausted|at capacity")),
    (ModelMisconfigured, re.compile(r"model_not_found|invalid_api_key|does not exist|not supported with this model")),
)
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[ChatError]], ...] = (
    (ContentFilterFinishReasonError, ContentRefused),
    (MaxTurnsExceeded, AnswerTooLong),
    ((AuthenticationError, PermissionDeniedError, NotFoundError), ModelMisconfigured),
    (RateLimitError, ModelBusy),
    ((APITimeoutError, APIConnectionError, ModelTimeoutError), ModelUnavailable),
)


def told_of(error: Exception) -> ChatError | None:
    """None for what is no trouble of a model's; nothing of the provider's own words is in what is told."""
    if not isinstance(error, (APIError, ModelBehaviorError, *_classes())):
        return None
    said = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')} {error}".lower()
    for kind, words in _SAID:
        if words.search(said):
            return kind()
    for classes, kind in _KINDS:
        if isinstance(error, classes):
            return kind()
    if isinstance(error, APIStatusError) and 400 <= error.status_code < 500:
        return ModelMisconfigured()
    return ModelUnavailable()


def _classes() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = []
    for classes, _ in _KINDS:
        found += classes if isinstance(classes, tuple) else (classes,)
    return tuple(found)
