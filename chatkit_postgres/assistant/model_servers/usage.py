"""Converts token counts, which arrive in three shapes, to the one that ``chat_turns.usage`` stores."""

from collections import Counter
from contextvars import ContextVar

from agents import Usage
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

failed_usage: ContextVar[Counter[str] | None] = ContextVar("failed_usage", default=None)
"""Counts of model calls that failed or were cut off, which the Agents SDK does not add up. Set where a run begins."""


def token_counts(usage: Usage | ResponseUsage | CompletionUsage) -> dict[str, int]:
    """Counts that the server omitted are 0."""
    given, made = ("prompt", "completion") if isinstance(usage, CompletionUsage) else ("input", "output")

    def count(counted: object, name: str) -> int:
        return getattr(counted, name, None) or 0

    return {
        "input_tokens": count(usage, f"{given}_tokens"),
        "cached_tokens": count(getattr(usage, f"{given}_tokens_details", None), "cached_tokens"),
        "output_tokens": count(usage, f"{made}_tokens"),
        "reasoning_tokens": count(getattr(usage, f"{made}_tokens_details", None), "reasoning_tokens"),
    }


def add_failed_usage(usage: ResponseUsage | CompletionUsage | None) -> None:
    if usage is not None and (counts := failed_usage.get()) is not None:
        counts.update(token_counts(usage))
