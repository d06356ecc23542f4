"""The HTTP side of a turn, against clients that misbehave."""

import asyncio
from typing import Any

from chatkit_postgres.api.event_stream import EventStream


class Endless:
    async def read(self, seconds: float) -> bytes | None:
        await asyncio.sleep(0)
        return b"data: {}\n\n"


async def never() -> Any:
    await asyncio.Event().wait()


async def test_a_client_that_takes_nothing_counts_as_gone() -> None:
    left: list[bool] = []
    sent: list[Any] = []

    async def blocked_after_three(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:
            await asyncio.Event().wait()

    stream = EventStream(Endless(), lambda: left.append(True), heartbeat_seconds=1, send_seconds=0.05)
    await asyncio.wait_for(stream({"type": "http"}, never, blocked_after_three), 5)
    assert left == [True]
    assert len(sent) == 4


async def test_a_client_that_hangs_up_is_noticed_while_nothing_is_sent() -> None:
    left: list[bool] = []

    class Silent:
        async def read(self, seconds: float) -> bytes | None:
            await asyncio.sleep(60)
            return None

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def take(_: Any) -> None:
        pass

    stream = EventStream(Silent(), lambda: left.append(True), heartbeat_seconds=1, send_seconds=1)
    await asyncio.wait_for(stream({"type": "http"}, gone, take), 5)
    assert left == [True]
