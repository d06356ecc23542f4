"""What to try when a provider refuses an input, and what to say when there is nothing left to try.

A conversation that was once refused must not be refused for ever. Too long: again with half of it, and again. Refused
for something in it: again without what is older, because that may be what was refused, by this provider or for this
model. If the user's newest message alone is refused, it is that message, and the error says so.
"""

import time
from collections.abc import Sequence
from typing import Any

from openai import APIError, APIStatusError

from app.assistant import less_input
from app.assistant.provider_errors import ABOUT_THE_INPUT, ModelRefusal, has_code, told_of
from app.assistant.sse import drained
from app.errors import ChatError, ContentRefused, ContextTooLong, ModelMisconfigured, PictureRefused
from app.observability.logs import get_logger

MOST_HALVINGS = 6
SMALLEST_BUDGET = 2000
"""Characters: a model that takes no more is not in use."""
BUDGET_SECONDS = 3600
"""After so long a larger input is tried again."""
WITH_FILES = "The assistant may not answer this message, or what is attached to it."

logger = get_logger(__name__)


class ModelMemory:
    """What models have taken and refused, in this process."""

    def __init__(self) -> None:
        self._budgets: dict[str, tuple[int, float]] = {}
        self.blind: set[str] = set()
        """Names of models that have refused pictures."""

    def budget_of(self, model: str) -> int | None:
        """The characters of input that it takes, where it has refused more."""
        budget, since = self._budgets.get(model, (0, 0.0))
        if time.monotonic() - since > BUDGET_SECONDS:
            self._budgets.pop(model, None)
            return None
        return budget or None

    def remember_budget(self, model: str, characters: int) -> None:
        self._budgets[model] = (max(characters, SMALLEST_BUDGET), time.monotonic())


class Attempts:
    """The inputs of one call of a model, one after another."""

    def __init__(self, items: Sequence[Any], model: str, memory: ModelMemory) -> None:
        self._model = model
        self._memory = memory
        self._halvings = 0
        self._is_newest_alone = False
        self._has_no_older_pictures = False
        self._whole = list(items)
        if model in memory.blind:
            self._whole = less_input.without_older_pictures(self._whole)
        self._limit = memory.budget_of(model)
        self.items = self._whole if self._limit is None else less_input.fitted(self._whole, self._limit)

    def passed(self) -> None:
        if self._halvings and self._limit is not None:
            self._memory.remember_budget(self._model, self._limit)
        if self._has_no_older_pictures:
            self._memory.blind.add(self._model)
        elif less_input.has_pictures(self.items):
            self._memory.blind.discard(self._model)

    def after(self, error: APIError) -> None:
        """Have less in ``items``. Raises ModelRefusal, or the error itself, when there is no less."""
        told = told_of(error, has_pictures=less_input.has_pictures(self.items))
        if told is None:
            raise error
        less = self._less(told, error)
        if less is None:
            raise drained(ModelRefusal(error, self._sentence(told))) from error
        logger.warning("model_input_reduced", refused=told.code, model=self._model, items=len(less))
        self.items = less
        if not isinstance(told, ContextTooLong):
            self._whole = less

    def _less(self, told: ChatError, error: APIError) -> list[Any] | None:
        match told:
            case ContextTooLong():
                return self._half()
            case PictureRefused():
                less = less_input.without_older_pictures(self.items)
                self._has_no_older_pictures = True
                return less if less != self.items else None
            case ContentRefused():
                return self._newest_alone()
            case ModelMisconfigured() if (
                isinstance(error, APIStatusError) and error.status_code in ABOUT_THE_INPUT and not has_code(error)
            ):
                # It says what it does not take in words that nobody knows.
                return self._newest_alone()
            case _:
                return None

    def _half(self) -> list[Any] | None:
        weight = less_input.weight_of(self.items)
        limit = weight if self._limit is None else self._limit
        while self._halvings <= MOST_HALVINGS:
            self._halvings += 1
            limit = self._limit = limit // 2 if self._halvings <= MOST_HALVINGS else 0
            less = less_input.fitted(self._whole, self._limit)
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
        has_files = less_input.has_files(less_input.newest_turn(self.items))
        return ContentRefused(WITH_FILES) if isinstance(told, ContentRefused) and has_files else told
