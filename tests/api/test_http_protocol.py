"""What a client can do to a connection below the application, over a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from chatkit_postgres.api.http_protocol import BoundedHttpProtocol

SEEN: list[tuple[str, dict[bytes, bytes]]] = []
HUGE = 40_000_000


class Impatient(BoundedHttpProtocol):
    header_seconds = 0.4
    linger_seconds = 0.3
    linger_bytes = 200_000


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers at once at /at-once, a lot at /huge, after a second at /slow, and elsewhere when it has read the body.
    What it says at /given-up has no end, and is given up after a moment."""
    SEEN.append((scope["path"], dict(scope["headers"])))
    if scope["path"] == "/given-up":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
                    await asyncio.sleep(0)
        return
    if scope["path"].startswith("/stream/"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(int(scope["path"].removeprefix("/stream/"))):
            await send({"type": "http.response.body", "body": f"piece {number}\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    body = b"x" * HUGE if scope["path"] == "/huge" else b"hello"
    more = scope["path"] not in {"/at-once", "/huge"}
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    SEEN.clear()
    config = uvicorn.Config(
        app,
        port=0,
        http=Impatient,
        lifespan="off",
        log_config=None,
        ws="none",
        timeout_keep_alive=1,
        h11_max_incomplete_event_size=8000,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.01)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


async def exchanged(port: int, *pieces: bytes, pause: float = 0.05) -> bytes:
    """Everything the server says until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 8)
    except ConnectionError:
        return b"hung up"
    finally:
        writer.close()


def code_of(answer: bytes) -> tuple[bytes, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split()[1], json.loads(body)["code"]


async def test_headers_that_come_too_slowly_are_ended(port: int) -> None:
    answer = await exchanged(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert code_of(answer) == (b"408", "request_timed_out")


async def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    assert await exchanged(port) == b""


@pytest.mark.slow
async def test_empty_lines_keep_no_connection_open(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await exchanged(port, request, *[b"\r\n"] * 20, pause=0.1)
    assert answer.count(b"HTTP/1.1 200") == 1 or answer == b"hung up"


@pytest.mark.slow
async def test_a_connection_is_used_again_and_each_request_has_its_own_time(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(4):
        for piece in (b"POST / HTTP/1.1\r\nHost: x\r\n", b"Content-Length: 4\r\n\r\nab", b"cd"):
            writer.write(piece)
            await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), 5)).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.1)
    writer.close()
    assert len(SEEN) == 4


@pytest.mark.parametrize("framing", [b"Content-Length: 40\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n28\r\n"])
@pytest.mark.parametrize("protocol", [b"x", b"websocket", b"h2c"])
async def test_the_body_of_a_request_to_upgrade_is_no_request(port: int, framing: bytes, protocol: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n" + framing
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n    "
    for pieces in ([head, smuggled], [head + smuggled]):
        answer = await exchanged(port, *pieces)
        assert code_of(answer) == (b"400", "bad_request")
        assert answer.count(b"HTTP/1.1") == 1
    assert SEEN == []


@pytest.mark.slow
async def test_trailers_are_no_headers(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await exchanged(port, head + b"2\r\nab\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [set(headers) for _, headers in SEEN] == [{b"host", b"transfer-encoding"}]


@pytest.mark.parametrize("path", [b"/", b"/at-once"])
@pytest.mark.parametrize("trailer", [b"x:1\r\n" * 100_000, b"x:" + b"y" * 500_000])
async def test_trailers_without_end_are_ended(port: int, path: bytes, trailer: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await exchanged(port, head, b"0\r\n", trailer)
    assert answer in {b"", b"hung up"} or answer.startswith(b"HTTP/1.1 200 ")


async def test_a_body_nobody_reads_is_not_taken_for_ever(port: int) -> None:
    head = b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    await asyncio.wait_for(reader.readuntil(b"hello"), 5)
    taken = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            writer.write(b"x" * 100_000)
            await writer.drain()
            taken += 1
            await asyncio.sleep(0.01)
    assert taken < 100
    writer.close()


async def test_the_rest_of_a_refused_body_may_still_arrive(port: int) -> None:
    head = b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(head)
        assert b"connection" not in await asyncio.wait_for(reader.readuntil(b"hello"), 5)
        writer.write(b"x" * 100_000)
        await asyncio.sleep(0.1)
    writer.close()
    assert len(SEEN) == 2


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"Content-Length: 300000\r\n\r\n", b"x" * 300_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nabcd\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % 300_000 + b"x" * 300_000 + b"\r\n0\r\n\r\n"),
    ],
)
async def test_an_answer_before_too_much_of_a_body_says_that_it_is_the_last(
    port: int, framing: bytes, rest: bytes
) -> None:
    """What a client would send next on this connection might be lost, so it must not try."""
    head = b"POST /at-once HTTP/1.1\r\nHost: x\r\n" + framing
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.readuntil(b"hello"), 5)
    assert b"connection: close" in answer
    with contextlib.suppress(ConnectionError):
        writer.write(rest + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert [path for path, _ in SEEN] == ["/at-once"]


async def test_headers_too_large_in_the_middle_of_an_answer_only_end_the_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
    while not SEEN:  # noqa: ASYNC110 - the application is in another task
        await asyncio.sleep(0.01)
    writer.write(b"abGET / HTTP/1.1\r\nX-More: " + b"x" * 20_000)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.count(b"HTTP/1.1") <= 2
    assert b"hello" in answer or answer == b""
    writer.close()


@pytest.fixture
def soon_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "stalled_seconds", 0.5)


@pytest.mark.parametrize("path", [b"/huge", b"/given-up"])
@pytest.mark.usefixtures("soon_stalled")
async def test_a_client_that_reads_nothing_is_given_up(server: uvicorn.Server, port: int, path: bytes) -> None:
    """Whether its answer is complete, or was broken off because of that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        while not SEEN or server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells it in no other way
            await asyncio.sleep(0.05)
    received = 0
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(1_000_000), 5):
            received += len(piece)
    assert received < HUGE
    writer.close()


@pytest.mark.slow
@pytest.mark.usefixtures("soon_stalled")
@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_a_client_that_reads_slowly_gets_all_of_its_answer(port: int, more: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024)
    writer.write(b"GET /huge HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n")
    received = len((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n\r\n")[2])
    while received < HUGE and (piece := await asyncio.wait_for(reader.read(400_000), 5)):
        received += len(piece)
        await asyncio.sleep(0.02)
    assert received == HUGE
    writer.close()


@pytest.mark.slow
async def test_the_body_of_a_request_that_waits_has_its_own_time(port: int) -> None:
    """The one before it is answered meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.wait_for(reader.readuntil(b"hello"), 5)
    await asyncio.sleep(2 * Impatient.linger_seconds)
    writer.write(b"cd")
    assert (await asyncio.wait_for(reader.readuntil(b"hello"), 5)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_no_request_is_run_after_an_answer_that_is_the_last(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Its body comes to its end before it is answered, and another request with it.
    writer.write(b"POST /at-once HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"hello"), 5)
    writer.write(b"0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert [path for path, _ in SEEN] == ["/at-once"]
    writer.close()


@pytest.mark.slow
async def test_half_a_request_behind_others_cuts_no_answer(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(slow + slow + b"GET /third HTTP/1.1\r\nHost:")
    for _ in range(2):
        assert b"200" in await asyncio.wait_for(reader.readuntil(b"hello"), 5)
    writer.close()


@pytest.mark.parametrize("pieces", [0, 1, 3, 200])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_a_client_of_http_1_0_gets_no_chunks(port: int, pieces: int, method: str) -> None:
    """As nginx asks by default, and ab."""
    request = f"{method} /stream/{pieces} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    head, _, body = (await exchanged(port, request)).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"transfer-encoding" not in head.lower()
    expected = b"".join(f"piece {number}\n".encode() for number in range(pieces))
    assert body == (b"" if method == "HEAD" else expected)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_of_known_length_has_it_in_any_version(port: int, version: str) -> None:
    answer = await exchanged(port, f"GET / HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b"content-length: 5" in answer
    assert answer.endswith(b"\r\n\r\nhello")


async def test_a_request_that_follows_does_not_say_how_the_one_before_is_answered(port: int) -> None:
    first = b"GET /stream/3 HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await exchanged(port, first + b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    assert b"transfer-encoding: chunked" in answer
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"0\r\n\r\nHTTP/1.1 200" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_usual_shape(port: int, head: bytes) -> None:
    answer = await exchanged(port, head)
    assert code_of(answer) == (b"400", "bad_request")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["request_id"]
