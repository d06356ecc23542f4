"""Limits how many requests of one kind run at once in this process, per user and in all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chatkit_postgres.errors import TooManyRequests, Unavailable


class ConcurrencyLimit:
    """One for each kind: uploads, recordings, followers, Markdown that waits for its turn."""

    def __init__(self, *, per_user: int, altogether: int, refusal: type[TooManyRequests] = TooManyRequests) -> None:
        self._refusal = refusal
        self._per_user = per_user
        self._altogether = altogether
        self._held: Counter[str] = Counter()

    @contextmanager
    def acquire(self, user_id: str) -> Iterator[None]:
        """Raises the refusal if the user has too many, Unavailable if everybody has."""
        if self._held[user_id] >= self._per_user:
            raise self._refusal(retry_after_seconds=2)
        if self._held.total() >= self._altogether:
            raise Unavailable
        self._held[user_id] += 1
        try:
            yield
        finally:
            self._held[user_id] -= 1
            if not self._held[user_id]:
                del self._held[user_id]
