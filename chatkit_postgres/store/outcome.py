"""Outcome: how a turn ended, as the ledger records it."""

from dataclasses import dataclass
from typing import Literal

EndState = Literal["completed", "failed", "stopped", "superseded", "interrupted", "waiting"]


@dataclass(slots=True)
class Outcome:
    state: EndState = "completed"
    error_code: str | None = None
    """The code of the error that ended the turn."""
    usage: dict[str, int] | None = None
    """Token counts by name, as the provider reported them."""

    def tokens_spent(self, held: int) -> int:
        """Tokens to charge to the user's budget. A turn that was cut off while a model answered costs at least
        ``held``; so does one whose model has not said what it took."""
        if self.usage is None:
            return 0
        known = self.usage.get("input_tokens", 0) + self.usage.get("output_tokens", 0)
        match self.state:
            case "stopped" | "superseded" | "interrupted":
                return max(known, held)
            case "failed":
                # The provider may have refused it, or be away.
                return known
            case _:
                return known or held


@dataclass(frozen=True, slots=True)
class Settled:
    """What a turn's end was settled with."""

    tokens: int
    """Spent by the turn."""
    tokens_today: int | None
    """Spent by the user today (UTC), with those of the turn; None if nobody counts them."""

    def reaches(self, tokens: int) -> bool:
        """Whether it was this turn with which the user has spent so many today."""
        return self.tokens_today is not None and self.tokens_today - self.tokens < tokens <= self.tokens_today
