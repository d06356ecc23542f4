"""Retries an input that a provider refused, and chooses the error for the user when no retry is left.

A conversation that was once refused must not be refused for ever. Too long: again with half of it, and again. Refused
for something in it: again without what is older, because that may be what was refused, by this provider or for this
model. If the user's newest message alone is refused, it is that message, and the error says so.
"""

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from openai import APIError, APIStatusError
from pydantic import BaseModel

from chatkit_postgres.assistant import less_input
from chatkit_postgres.assistant.provider_errors import ABOUT_THE_INPUT, ModelRefusal, has_code, user_facing_error
from chatkit_postgres.assistant.sse import drained
from chatkit_postgres.errors import (
    AnswerFiltered,
    ChatError,
    ContentRefused,
    ContextTooLong,
    ModelMisconfigured,
    PictureRefused,
)
from chatkit_postgres.observability.logs import get_logger

MAX_HALVINGS = 7
"""The last of them leaves the newest message alone, with as little as possible of what came with it."""
MIN_BUDGET = 4000
"""Bytes. Less than that is taken for a mistake and not remembered."""
MEMORY_SECONDS = 3600
"""After so long a larger input, or a picture, is tried again."""
SHORT_MESSAGE = 1000
"""Bytes: if even this is too long, it is not for the message."""
WITH_FILES = "The assistant may not answer this message, or what is attached to it."

logger = get_logger(__name__)


class ModelMemory:
    """What models have refused, in this process, whoever had asked; for an hour."""

    def __init__(self) -> None:
        self._budgets: dict[str, tuple[int, float]] = {}
        self._blind: dict[str, float] = {}

    def budget_of(self, model: str) -> int | None:
        """The bytes of input that it takes, where it has refused more."""
        budget, since = self._budgets.get(model, (None, 0.0))
        return budget if _is_recent(since) else None

    def remember_budget(self, model: str, weight: int) -> None:
        if weight >= MIN_BUDGET:
            self._budgets[model] = (weight, time.monotonic())

    def is_blind(self, model: str) -> bool:
        """Whether it has said that it sees no pictures."""
        return _is_recent(self._blind.get(model, 0.0))

    def remember_sight(self, model: str, *, sees: bool) -> None:
        if sees:
            self._blind.pop(model, None)
        else:
            self._blind[model] = time.monotonic()


def _is_recent(since: float) -> bool:
    return since > 0 and time.monotonic() - since < MEMORY_SECONDS


class Attempts:
    """The inputs of one call of a model, one after another."""

    def __init__(self, items: Sequence[Any], model: str, memory: ModelMemory) -> None:
        self._model = model
        self._memory = memory
        self._halvings = 0
        self._is_newest_alone = self._is_budget = self._is_blind = False
        self._whole = [item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item for item in items]
        if memory.is_blind(model):
            self._whole = less_input.without_older_pictures(self._whole)
        self._limit = memory.budget_of(model)
        self.items = self._whole if self._limit is None else less_input.fitted(self._whole, self._limit)

    def passed(self) -> None:
        if self._is_budget and self._limit is not None:
            self._memory.remember_budget(self._model, max(self._limit, less_input.weight_of(self.items)))
        has_pictures = less_input.has_pictures(self.items)
        if has_pictures or self._is_blind:
            self._memory.remember_sight(self._model, sees=has_pictures)

    def after(self, error: APIError) -> None:
        """Have less in ``items``. Raises ModelRefusal, or the error itself, when there is no less."""
        told = user_facing_error(error, has_pictures=less_input.has_pictures(self.items))
        if isinstance(told, AnswerFiltered):
            # There is no word of an answer: it was the question.
            told = ContentRefused()
        less = self._less(told, error) if told is not None else None
        if told is None or less is None:
            self._raise(error, told)
        logger.warning("model_input_reduced", refused=told.code, model=self._model, items=len(less))
        self.items = less
        if not isinstance(told, ContextTooLong):
            self._whole = less

    def _raise(self, error: APIError, told: ChatError | None) -> NoReturn:
        sentence = self._sentence(told) if told is not None else None
        plain = user_facing_error(error)
        if sentence is None or (plain is not None and plain.message == sentence.message):
            # As the provider has it, for whoever handles it in their own way.
            raise error
        raise drained(ModelRefusal(error, sentence)) from error

    def _less(self, told: ChatError, error: APIError) -> list[Any] | None:
        is_about_input = isinstance(error, APIStatusError) and error.status_code in ABOUT_THE_INPUT
        match told:
            case ContextTooLong():
                return self._half(error)
            case PictureRefused():
                less = less_input.without_older_pictures(self.items)
                # A picture that is refused for itself says nothing of others.
                self._is_blind = not has_code(error)
                return less if less != self.items else None
            case ContentRefused():
                return self._newest_alone()
            case ModelMisconfigured() if is_about_input and not has_code(error):
                # It says what it does not take in words that nobody knows.
                return self._newest_alone()
            case _:
                return None

    def _half(self, error: APIError) -> list[Any] | None:
        weight = less_input.weight_of(self.items)
        limit = weight if self._limit is None else self._limit
        # Gateways bound bytes, and tokens a minute are not a window.
        status = error.status_code if isinstance(error, APIStatusError) else None
        self._is_budget = status not in {413, 429} and not less_input.has_pictures(self.items)
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

    def _sentence(self, told: ChatError) -> ChatError:
        newest = less_input.newest_turn(self.items)
        match told:
            case ContentRefused() if less_input.has_files(newest):
                return ContentRefused(WITH_FILES)
            case ContextTooLong() if less_input.has_pictures(newest):
                return PictureRefused()
            case ContextTooLong() if less_input.own_words(newest) < SHORT_MESSAGE:
                return ModelMisconfigured()
            case _:
                return told
