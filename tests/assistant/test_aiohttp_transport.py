"""What a model's server can do to a connection: every kind of it ends, in time, as an error the client knows."""

import asyncio
import gc
import json
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, RateLimitError, Timeout

from chatkit_postgres.assistant.model_servers import provider_errors
from chatkit_postgres.assistant.model_servers.aiohttp_transport import AiohttpTransport
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.errors import ModelUnavailable
from chatkit_postgres.observability.logs import reason_of
from tests.support.processes import ModelServer, free_port

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SECONDS = 0.5
PATIENCE = 2
"""Where both ends share a busy process, and neither may be taken for silent."""

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def piece(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f"{number} "}}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(data)}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def served(behave: Behaviour) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


async def asked(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def words(
    url: str, *, content: str = "Hello", heard: list[str] | None = None, pause: float = 0, seconds: float = SECONDS
) -> list[str]:
    heard = heard if heard is not None else []
    timeout = Timeout(seconds, connect=5)
    async with StreamingOpenAI(api_key="none", base_url=url, max_retries=0, timeout=timeout) as client:
        given: Any = [{"role": "user", "content": content}]
        async for part in await client.chat.completions.create(model="m", messages=given, stream=True):
            heard.append(part.choices[0].delta.content or "")
            await asyncio.sleep(pause)
    return heard


async def test_what_is_no_http_in_the_middle_of_an_answer_ends_it() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED + chunk(piece(0)))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"upstream connect error or disconnect\r\n")
        await asyncio.sleep(30)

    heard: list[str] = []
    async with served(behave) as url, asyncio.timeout(10):
        with pytest.raises((APIConnectionError, APITimeoutError)):
            await words(url, heard=heard)
    assert heard == ["0 "]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_a_server_that_reads_nothing_is_given_up() -> None:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    async with served(behave) as url, asyncio.timeout(15):
        with pytest.raises(APITimeoutError):
            await words(url, content="x" * 20_000_000)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        HEAD + b"x-large: " + b"x" * 200_000 + b"\r\n\r\n",
        HEAD + b"x-many: x\r\n" * 1000 + b"\r\n",
        b"",
    ],
    ids=["no http", "a long header", "many headers", "nothing"],
)
async def test_an_answer_that_is_none_is_the_models_trouble(said: bytes) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(said)
        await writer.drain()

    async with served(behave) as url, asyncio.timeout(10):
        with pytest.raises(APIConnectionError) as failed:
            await words(url)
    assert isinstance(provider_errors.user_facing_error(failed.value), ModelUnavailable)


@pytest.mark.parametrize("size", [12_000, 64 * 1024])
async def test_a_header_line_may_be_long(size: int) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(HEAD + b"x-policy: " + b"x" * size + b"\r\n\r\n" + piece(0) + b"data: [DONE]\n\n")
        await writer.drain()

    async with served(behave) as url:
        assert await words(url) == ["0 "]


LATER = 60


@pytest.mark.parametrize(
    "header",
    [
        f"retry-after: {LATER}",
        f"retry-after-ms: {LATER * 1000}",
        "retry-after: " + formatdate(time.time() + 3600, usegmt=True),
        "retry-after: 1e3",
    ],
    ids=["seconds", "milliseconds", "a date", "an exponent"],
)
async def test_nobody_waits_for_a_server_that_wants_to_be_left_alone(header: str) -> None:
    requests = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        head = f"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\nconnection: close\r\n{header}\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()

    async with (
        served(behave) as url,
        asyncio.timeout(5),
        StreamingOpenAI(api_key="none", base_url=url, max_retries=2) as client,
    ):
        with pytest.raises(RateLimitError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
    assert len(requests) == 1


async def test_a_connection_that_breaks_after_the_end_breaks_nothing() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        done = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        writer.write(CHUNKED + chunk(piece(0)) + chunk(f"data: {json.dumps(done)}\n\n".encode()))
        await writer.drain()

    async with served(behave) as url:
        assert "".join(await words(url)) == "0 "


async def test_no_task_or_connection_is_left_of_a_stream_that_nobody_reads_to_its_end() -> None:
    gone = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED + chunk(piece(0)))
        await writer.drain()
        # To its end, which is when the client has gone.
        await reader.read()
        gone.set()

    async with served(behave) as url, StreamingOpenAI(api_key="none", base_url=url, max_retries=0) as client:
        before = asyncio.all_tasks()
        asked_for: Any = [{"role": "user", "content": "Hello"}]
        stream = await client.chat.completions.create(model="m", messages=asked_for, stream=True)
        async for _ in stream:
            break
        await stream.aclose()
        async with asyncio.timeout(5):
            await gone.wait()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() <= before | {asyncio.current_task()}


async def test_a_server_that_answers_nothing_is_given_up_after_the_read_timeout() -> None:
    async def behave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asked(reader)
        await asyncio.sleep(60)

    # Not after the sum of all time limits.
    timeout = Timeout(0.5, connect=30)
    async with (
        served(behave) as url,
        asyncio.timeout(10),
        StreamingOpenAI(api_key="none", base_url=url, max_retries=0, timeout=timeout) as client,
    ):
        with pytest.raises(APITimeoutError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])


async def test_credentials_in_the_base_url_are_sent_as_the_stock_client_sends_them() -> None:
    heads: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(CHUNKED + chunk(piece(0) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async with served(behave) as url:
        with_user = url.replace("http://", "http://user:pw@")
        assert await words(with_user) == ["0 "]
        stock = AsyncOpenAI(api_key="none", base_url=with_user, max_retries=0)
        asked_for: Any = [{"role": "user", "content": "Hello"}]
        await (await stock.chat.completions.create(model="m", messages=asked_for, stream=True)).close()
        await stock.close()
    ours, theirs = (re.findall(rb"(?i)authorization: (.*)\r", head) for head in heads)
    assert ours == theirs == [b"Basic dXNlcjpwdw=="]


async def test_a_request_that_cannot_be_sent_is_the_models_trouble() -> None:
    async with StreamingOpenAI(api_key="a\r\nb", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            await client.models.list()


async def test_the_password_of_a_proxy_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with served(behave) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http://", "http://u:secretpw@").removesuffix("/v1"))
        with pytest.raises(APIConnectionError) as failed:
            await words("https://model.invalid/v1")
    assert "407" in "".join(traceback.format_exception(failed.value))
    assert "secretpw" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_may_be_used_in_one_event_loop_after_another(model_server: ModelServer) -> None:
    client = StreamingOpenAI(api_key="none", base_url=model_server.url, max_retries=0)
    for _ in range(2):
        assert asyncio.run(_listed(client)) == ["m"]
    asyncio.run(client.close())
    # Nobody can close the connection of a loop that is closed: it is collected here, not in another test.
    gc.collect()


async def _listed(client: StreamingOpenAI) -> list[str]:
    return [model.id for model in (await client.models.list()).data]


async def test_a_refused_connection_is_no_timeout() -> None:
    with pytest.raises(APIConnectionError) as failed:
        await words(f"http://127.0.0.1:{free_port()}/v1")
    assert not isinstance(failed.value, APITimeoutError)
    assert "ConnectionRefusedError" in reason_of(failed.value)


async def test_what_came_before_a_connection_broke_is_not_lost() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        # Without the last chunk, as careless servers end an answer.
        writer.write(CHUNKED + b"".join(chunk(piece(number)) for number in range(400)))
        await writer.drain()

    heard: list[str] = []
    async with served(behave) as url, asyncio.timeout(20):
        with pytest.raises(APIConnectionError):
            await words(url, heard=heard, pause=0.001)
    assert "".join(heard) == "".join(f"{number} " for number in range(400))


@pytest.mark.slow
async def test_silence_ends_an_answer_and_slowness_does_not() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED)
        for number in range(8):
            writer.write(chunk(piece(number)))
            await writer.drain()
            await asyncio.sleep(PATIENCE / 4)
        await asyncio.sleep(30)

    heard: list[str] = []
    async with served(behave) as url, asyncio.timeout(25):
        with pytest.raises(APITimeoutError):
            await words(url, heard=heard, seconds=PATIENCE)
    assert len(heard) == 8


async def test_a_proxy_that_is_none_for_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ValueError, match="socks5"):
        AiohttpTransport()


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(CHUNKED + chunk(piece(0) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async with served(behave) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        assert await words("http://model.invalid/v1") == ["0 "]
    assert seen[0].startswith(b"POST http://model.invalid/v1/chat/completions HTTP/1.1\r\n")
