"""Retries an input that a provider refused, and chooses the error for the user when no retry is left.

A refusal must not block a conversation permanently. Input that is too long is halved and retried, several times. Other
refused input is retried without older turns, whose content this provider or model may have refused. If the user's
newest message alone is refused, the error is about that message.
"""

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from openai import APIError, APIStatusError
from pydantic import BaseModel

from chatkit_postgres.assistant.model_input import less_input
from chatkit_postgres.assistant.model_servers.provider_errors import (
    ABOUT_THE_INPUT,
    ModelRefusal,
    has_code,
    user_facing_error,
)
from chatkit_postgres.assistant.model_servers.sse import drained
from chatkit_postgres.errors import (
    AnswerFiltered,
    ChatError,
    ContentRefused,
    ContextTooLong,
    ImageRefused,
    ModelMisconfigured,
)
from chatkit_postgres.observability.logs import get_logger

MAX_HALVINGS = 7
"""The last one leaves the newest message alone, and as little as possible of the rest of its turn."""
MIN_BUDGET = 4000
"""Bytes. A smaller budget is considered a mistake and not remembered."""
MEMORY_SECONDS = 3600
"""How long refusals are remembered; after that, a larger input, or an image, is tried again."""
SHORT_MESSAGE = 1000
"""Bytes: if a shorter message is refused as too long, the message is not the cause."""
WITH_FILES = "The assistant may not answer this message, or what is attached to it."

logger = get_logger(__name__)


class ModelMemory:
    """Remembers the refusals of models for an hour, in this process and for all users."""

    def __init__(self) -> None:
        self._budgets: dict[str, tuple[int, float]] = {}
        self._blind: dict[str, float] = {}

    def budget_of(self, model: str) -> int | None:
        """The bytes of input that the model accepts, if it has refused more."""
        budget, since = self._budgets.get(model, (None, 0.0))
        return budget if _is_recent(since) else None

    def remember_budget(self, model: str, weight: int) -> None:
        if weight >= MIN_BUDGET:
            self._budgets[model] = (weight, time.monotonic())

    def is_blind(self, model: str) -> bool:
        """Whether the model has refused images."""
        return _is_recent(self._blind.get(model, 0.0))

    def remember_sight(self, model: str, *, sees: bool) -> None:
        if sees:
            self._blind.pop(model, None)
        else:
            self._blind[model] = time.monotonic()


def _is_recent(since: float) -> bool:
    return since > 0 and time.monotonic() - since < MEMORY_SECONDS


class Attempts:
    """The successive inputs of one call of a model."""

    def __init__(self, items: Sequence[Any], model: str, memory: ModelMemory) -> None:
        self._model = model
        self._memory = memory
        self._halvings = 0
        self._is_newest_alone = self._is_budget = self._is_blind = False
        self._whole = [item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item for item in items]
        if memory.is_blind(model):
            self._whole = less_input.without_older_images(self._whole)
        self._limit = memory.budget_of(model)
        self.items = self._whole if self._limit is None else less_input.fitted(self._whole, self._limit)

    def passed(self) -> None:
        if self._is_budget and self._limit is not None:
            self._memory.remember_budget(self._model, max(self._limit, less_input.weight_of(self.items)))
        has_images = less_input.has_images(self.items)
        if has_images or self._is_blind:
            self._memory.remember_sight(self._model, sees=has_images)

    def after(self, error: APIError) -> None:
        """Reduce ``items``. Raises ModelRefusal, or the error itself, if they cannot be reduced."""
        user_error = user_facing_error(error, has_images=less_input.has_images(self.items))
        if isinstance(user_error, AnswerFiltered):
            # There is no answer yet, so the refusal is about the message.
            user_error = ContentRefused()
        less = self._less(user_error, error) if user_error is not None else None
        if user_error is None or less is None:
            self._raise(error, user_error)
        logger.warning("model_input_reduced", refused=user_error.code, model=self._model, items=len(less))
        self.items = less
        if not isinstance(user_error, ContextTooLong):
            self._whole = less

    def _raise(self, error: APIError, user_error: ChatError | None) -> NoReturn:
        final = self._final_error(user_error) if user_error is not None else None
        plain = user_facing_error(error)
        if final is None or (plain is not None and plain.message == final.message):
            # The provider's own error, for code that handles it itself.
            raise error
        raise drained(ModelRefusal(error, final)) from error

    def _less(self, user_error: ChatError, error: APIError) -> list[Any] | None:
        is_about_input = isinstance(error, APIStatusError) and error.status_code in ABOUT_THE_INPUT
        match user_error:
            case ContextTooLong():
                return self._half(error)
            case ImageRefused():
                less = less_input.without_older_images(self.items)
                # If a code names the cause, it is this image, and others may be accepted.
                self._is_blind = not has_code(error)
                return less if less != self.items else None
            case ContentRefused():
                return self._newest_alone()
            case ModelMisconfigured() if is_about_input and not has_code(error):
                # The provider names the cause only in text that cannot be classified.
                return self._newest_alone()
            case _:
                return None

    def _half(self, error: APIError) -> list[Any] | None:
        weight = less_input.weight_of(self.items)
        limit = weight if self._limit is None else self._limit
        # Gateways limit bytes (413), and a limit of tokens per minute (429) is not the context window.
        status = error.status_code if isinstance(error, APIStatusError) else None
        self._is_budget = status not in {413, 429} and not less_input.has_images(self.items)
        while self._halvings < MAX_HALVINGS:
            self._halvings += 1
            limit = self._limit = limit // 2 if self._halvings < MAX_HALVINGS else 0
            less = less_input.fitted(self._whole, limit)
            if less_input.weight_of(less) < weight:
                return less
        return None

    def _newest_alone(self) -> list[Any] | None:
        newest = less_input.newest_turn(self.items)
        if self._is_newest_alone or len(newest) == len(self.items):
            return None
        self._is_newest_alone = True
        return newest

    def _final_error(self, user_error: ChatError) -> ChatError:
        newest = less_input.newest_turn(self.items)
        match user_error:
            case ContentRefused() if less_input.has_files(newest):
                return ContentRefused(WITH_FILES)
            case ContextTooLong() if less_input.has_images(newest):
                return ImageRefused()
            case ContextTooLong() if less_input.weight_of_own_text(newest) < SHORT_MESSAGE:
                return ModelMisconfigured()
            case _:
                return user_error
