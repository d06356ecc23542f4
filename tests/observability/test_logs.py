"""What a log may say of a failure."""

import asyncio

import pytest

from chatkit_postgres.observability.logs import MAX_CAUSE, reason_of


async def test_a_time_out_is_one_and_no_cancellation() -> None:
    with pytest.raises(TimeoutError) as failed:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)
    assert reason_of(failed.value) == "TimeoutError"


def test_the_innermost_cause_is_named_with_what_the_system_says() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    assert reason_of(ExceptionGroup("several", [RuntimeError("what somebody said")])) == "RuntimeError"
    wrapped = RuntimeError("what somebody said")
    wrapped.__cause__ = refused
    assert reason_of(wrapped) == "ConnectionRefusedError: Connection refused"


def test_what_was_hidden_stays_hidden_and_a_circle_ends() -> None:
    hidden = RuntimeError()
    hidden.__context__, hidden.__suppress_context__ = KeyError(), True
    assert reason_of(hidden) == "RuntimeError"
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert reason_of(first) in {"ValueError", "KeyError"}
    assert MAX_CAUSE < 1000
