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
