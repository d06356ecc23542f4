"""The HTTP side of a turn, against clients that misbehave."""

import asyncio
from typing import Any

import pytest

from chatkit_postgres.api.event_stream import EventStream
from chatkit_postgres.api.middleware import HeadMiddleware, RequestIdMiddleware


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


class Once:
    """One frame, and the end."""

    def __init__(self) -> None:
        self._frames = [b"data: {}\n\n", b""]

    async def read(self, seconds: float) -> bytes:
        return self._frames.pop(0)


def scope() -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/", "headers": [], "state": {}}


async def test_events_are_sent_when_the_route_has_ended() -> None:
    """What the route and the middleware around it hold is free while a stream is open."""
    happened: list[str] = []
    given = scope()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        scope["route"], scope["exit_stack"] = object(), object()
        await EventStream(Once(), lambda: happened.append("left"), heartbeat_seconds=1, send_seconds=1)(
            scope, receive, send
        )
        happened.append("route ended")

    async def take(message: Any) -> None:
        happened.append(message["type"])
        assert ("exit_stack" in given) is (message["type"] == "http.response.start")
        # Middleware of a host may read it afterwards.
        assert "route" in given

    await RequestIdMiddleware(route)(given, never, take)
    body = "http.response.body"
    assert happened == ["http.response.start", "route ended", body, body, "left"]


async def test_a_stream_is_left_if_middleware_fails_after_it_began() -> None:
    left: list[bool] = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await EventStream(Once(), lambda: left.append(True), heartbeat_seconds=1, send_seconds=1)(scope, receive, send)
        raise ValueError("broken")

    async def take(_: Any) -> None:
        pass

    with pytest.raises(ValueError, match="broken"):
        await RequestIdMiddleware(failing)(scope(), never, take)
    assert left == [True]


async def test_a_stream_is_left_if_it_cannot_begin() -> None:
    left: list[bool] = []

    async def closed(_: Any) -> None:
        raise OSError("closed")

    stream = EventStream(Once(), lambda: left.append(True), heartbeat_seconds=1, send_seconds=1)
    with pytest.raises(OSError, match="closed"):
        await stream(scope(), never, closed)
    assert left == [True]


async def test_a_cancelled_request_stays_cancelled() -> None:
    """Only the departure of the client ends a stream without an error."""
    left: list[bool] = []

    async def take(_: Any) -> None:
        await asyncio.sleep(0)

    stream = EventStream(Endless(), lambda: left.append(True), heartbeat_seconds=1, send_seconds=1)
    request = asyncio.create_task(stream(scope(), never, take))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert left == [True]


async def test_a_cancellation_counts_beside_the_departure_of_the_client() -> None:
    async def gone() -> Any:
        await asyncio.sleep(0)
        request.cancel()
        return {"type": "http.disconnect"}

    async def take(_: Any) -> None:
        pass

    class Silent:
        async def read(self, seconds: float) -> bytes | None:
            await asyncio.sleep(60)
            return None

    stream = EventStream(Silent(), lambda: None, heartbeat_seconds=1, send_seconds=1)
    request = asyncio.create_task(stream(scope(), gone, take))
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_a_head_request_of_a_stream_ends_at_once() -> None:
    """Or the next request on its connection would wait for the end of the turn."""
    sent: list[Any] = []

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await EventStream(Endless(), lambda: None, heartbeat_seconds=1, send_seconds=1)(scope, receive, send)

    async def take(message: Any) -> None:
        sent.append(message)
        if not message.get("more_body", True):
            request.cancel()

    request = asyncio.ensure_future(
        RequestIdMiddleware(HeadMiddleware(route))(scope() | {"method": "HEAD"}, never, take)
    )
    async with asyncio.timeout(5):
        await asyncio.gather(request, return_exceptions=True)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
