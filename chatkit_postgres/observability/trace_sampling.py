"""Bounds what traces cost: so many are begun in a second, whatever the load is."""

import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.util.types import Attributes

BURST_SECONDS = 5.0
"""A calm process saves up for so long: those who come together after that are all traced."""


class TracesPerSecond(Sampler):
    """A token bucket: ``rate`` traces a second, and ``BURST_SECONDS`` times as many at once."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._capacity = max(1.0, rate * BURST_SECONDS)
        self._tokens, self._at = self._capacity, clock()

    def should_sample(self, *_: Any, attributes: Attributes | None = None, **__: Any) -> SamplingResult:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return SamplingResult(Decision.DROP)
        self._tokens -= 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return f"TracesPerSecond{{{self._rate:g}}}"
