"""Pauses grow with the number of open streams, up to a limit, and end on a common tick."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from chatkit_postgres.assistant.model_servers.pace import MANY_STREAMS, MAX_LAGGING_SECONDS, Pace
from chatkit_postgres.assistant.model_servers.sse import MAX_SECONDS
from chatkit_postgres.chat.turns.checkpoints import PERIOD_SECONDS, STEP_SECONDS


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause; nobody waits for them."""
    seconds: list[float] = []

    async def sleep(duration: float) -> None:
        seconds.append(duration)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: 100.004)
    return seconds


async def test_a_pause_grows_with_the_open_streams_up_to_its_limit(slept: list[float]) -> None:
    paced = Pace(seconds_per_stream=0.001, max_seconds=0.005)
    with ExitStack() as streams:
        for _ in range(7):
            await paced.pause()
            streams.enter_context(paced.stream())
    await paced.pause()
    assert slept == [0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.005, 0.0]


async def test_a_stream_that_fails_counts_no_longer(slept: list[float]) -> None:
    paced = Pace(seconds_per_stream=0.001, max_seconds=1)
    with pytest.raises(ValueError, match="gone"), paced.stream():
        raise ValueError("gone")
    await paced.pause()
    assert slept == [0.0]


async def test_pauses_end_on_a_tick(slept: list[float]) -> None:
    paced = Pace(seconds_per_stream=0.001, max_seconds=1, tick_seconds=0.01)
    for count in (1, 6, 7):
        with ExitStack() as streams:
            for _ in range(count):
                streams.enter_context(paced.stream())
            await paced.pause()
    assert [round(100.004 + seconds, 6) for seconds in slept] == [100.01, 100.01, 100.02]


async def test_a_lagging_event_loop_pauses_longer_up_to_a_limit(slept: list[float]) -> None:
    paced = Pace(seconds_per_stream=0.00002, max_seconds=1)
    with ExitStack() as streams:
        for _ in range(MANY_STREAMS):
            streams.enter_context(paced.stream())
        for lag in (0.0, 0.04, 0.1, 5.0, 0.0):
            paced.slow_down(lag)
            await paced.pause()
    assert slept == [pytest.approx(seconds) for seconds in (0.005, 0.005, 0.505, MAX_LAGGING_SECONDS, 0.005)]


async def test_a_lagging_event_loop_does_not_slow_a_few_streams(slept: list[float]) -> None:
    paced = Pace(seconds_per_stream=0.001, max_seconds=1)
    paced.slow_down(5.0)
    with paced.stream():
        await paced.pause()
    assert slept == [0.001]


def test_what_a_model_has_sent_is_saved_within_a_second() -> None:
    """As long as the streams are not many on a lagging event loop: then it is what was read that is saved."""
    assert MAX_SECONDS + PERIOD_SECONDS + STEP_SECONDS < 1
