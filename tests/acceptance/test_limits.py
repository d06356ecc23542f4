"""What a request may cost, on a server with tight limits: every limit has its own clear error and changes nothing."""

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from tests.conftest import query
from tests.faults.harness import SECRET, environment, script
from tests.support.processes import ChatClient, ChatProcess, ModelServer, eventually, http, message, texts

TIGHT = {
    "CHAT_MAX_BODY_BYTES": "20000",
    "CHAT_BODY_SECONDS": "0.7",
    "CHAT_MAX_HEADER_BYTES": "9000",
    "CHAT_KEEP_ALIVE_SECONDS": "4",
    "CHAT_MAX_JSON_DEPTH": "10",
    "CHAT_MAX_JSON_VALUES": "300",
    "CHAT_MAX_MESSAGE_CHARACTERS": "500",
    "CHAT_MAX_PAGE_SIZE": "10",
    "CHAT_MAX_ANSWER_CHARACTERS": "5000",
    "CHAT_REQUESTS_PER_MINUTE": "40",
    "CHAT_TURNS_PER_USER": "2",
    "CHAT_MAX_TURNS": "3",
}


@pytest.fixture(scope="module")
def tight(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    server = ChatProcess(tmp_path_factory.mktemp("tight"), **environment(shared_database, model_server) | TIGHT)
    yield server.wait_until_ready()
    assert server.stop() == 0


def client_of(server: ChatProcess, user: str) -> ChatClient:
    return ChatClient(server.base_url, mint(SECRET, user, seconds=600))


def connect(server: ChatProcess) -> socket.socket:
    address = urlsplit(server.base_url)
    connection = socket.create_connection((address.hostname or "", address.port or 80), timeout=40)
    connection.settimeout(40)
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Everything until the server hangs up."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_connection_without_a_request_is_kept_as_long_as_was_said(tight: ChatProcess) -> None:
    """And `curl` may use one again after a while."""
    with connect(tight) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b'"ok"' not in connection.recv(65536):
                pass
            time.sleep(0.5)
        assert connection.recv(65536) == b""


def nested(depth: int) -> bytes:
    return b'{"type": "threads.list", "params": {}, "more": ' + b"[" * depth + b"]" * depth + b"}"


def many(values: int) -> bytes:
    return b'{"type": "threads.list", "params": {}, "more": [' + b",".join([b"1"] * values) + b"]}"


def create_of(text: str) -> bytes:
    return json.dumps({"type": "threads.create", "params": {"input": message(text)}}).encode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (create_of("x" * 25_000), 413, "too large"),
        (nested(9), 200, ""),
        (nested(10), 400, "deeper than 10"),
        (nested(9000), 400, "more than 300 values"),
        (many(250), 200, ""),
        (many(300), 400, "more than 300 values"),
        (create_of("x" * 501), 422, "This message is too long: it may have 500 characters (params.input.content)."),
        (b'{"type": "threads.list", "params": {"limit": 10}}', 200, ""),
        (b'{"type": "threads.list", "params": {"limit": 11}}', 422, "params.limit: 1 to 10"),
        (b'{"type": "threads.list", "params": {"limit": 0}}', 422, "params.limit: 1 to 10"),
        (b'{"type": "threads.list", "params": {"limit": -1}}', 422, "params.limit: 1 to 10"),
        (b'{"type": "items.list", "params": {"thread_id": "x", "limit": 1000000000000}}', 422, "params.limit: 1 to 10"),
    ],
)
def test_a_body_over_a_limit_is_refused_with_the_limit(tight: ChatProcess, body: bytes, status: int, says: str) -> None:
    client = client_of(tight, "bodies")
    response = client.send_raw(body)
    assert (response.status_code, says in response.text) == (status, True), response.text
    assert client_of(tight, "looks-after-bodies").call("threads.list")["data"] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "APPLICATION/JSON;charset=UTF-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/jsonp"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "identity"}, 200),
    ],
)
def test_only_plain_json_is_read(tight: ChatProcess, headers: dict[str, str], status: int) -> None:
    body = b'{"type": "threads.list", "params": {}}'
    body = gzip.compress(body) if headers.get("Content-Encoding") == "gzip" else body
    response = client_of(tight, "kinds").send_raw(body, **headers)
    assert response.status_code == status
    assert response.json().get("code") == (None if status == 200 else "unsupported_media_type")


def test_a_body_that_arrives_too_slowly_is_ended(tight: ChatProcess) -> None:
    client = client_of(tight, "slow")
    with connect(tight) as connection:
        head = f"POST /api/chatkit HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['Authorization']}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        status, answer = answer_of(connection)
    assert (status, answer["code"]) == (408, "request_timed_out")


def test_headers_that_do_not_end_are_ended(tight: ChatProcess) -> None:
    with connect(tight) as connection:
        connection.sendall(b"POST /api/chatkit HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(OSError):
            for _ in range(12):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                time.sleep(0.01)
        status, answer = answer_of(connection)
    assert (status, answer["code"]) == (431, "headers_too_large")


def test_headers_that_are_complete_and_too_large_are_refused(tight: ChatProcess) -> None:
    response = http.get(f"{tight.base_url}/health/live", headers={"X-More": "x" * 9000})
    assert (response.status_code, response.json()["code"]) == (431, "headers_too_large")
    assert http.get(f"{tight.base_url}/health/live", headers={"X-More": "x" * 8000}).status_code == 200


def test_a_user_who_asks_too_often_waits_and_nobody_else_does(tight: ChatProcess) -> None:
    eager, calm = client_of(tight, "eager"), client_of(tight, "calm")
    assert [eager.post("threads.list").status_code for _ in range(40)] == [200] * 40
    # A minute of the clock that ends meanwhile counts for less and less.
    refused = next(answer for _ in range(20) if (answer := eager.post("threads.list")).status_code == 429)
    assert refused.json()["code"] == "too_many_requests"
    # A minute, and the fortieth of one in which a request of it is over.
    assert 1 <= int(refused.headers["retry-after"]) <= 62
    assert calm.post("threads.list").status_code == 200


def test_a_user_has_so_many_answers_at_once_and_no_more(tight: ChatProcess) -> None:
    client = client_of(tight, "busy")
    streams = [client.stream("threads.create", input=message(script(words=3, then="hang"))) for _ in range(2)]
    for stream in streams:
        stream.wait_for_text()
    third = client.post("threads.create", input=message("And this?"))
    assert (third.status_code, third.json()["code"]) == (429, "too_many_turns")
    assert len(client.call("threads.list")["data"]) == 2
    assert client_of(tight, "idle").stream("threads.create", input=message("Hello")).wait()[-1]["type"] != "error"
    for stream in streams:
        stream.disconnect()
    # Whose answers have ended may ask again.
    eventually(lambda: client.post("threads.create", input=message("Now?")).status_code == 200, 10)


@pytest.mark.parametrize(("words", "size"), [(50_000, 20), (3, 5_000_000)])
def test_an_answer_without_end_is_ended_and_kept_up_to_the_limit(
    tight: ChatProcess, model_server: ModelServer, shared_database: URL, words: int, size: int
) -> None:
    """A megabyte in small pieces, and fifteen in three."""
    client = client_of(tight, f"endless-{words}")
    prompt = script(words=words, delay=0, size=size)
    stream = client.stream("threads.create", input=message(prompt))
    stream.wait()
    assert [(error["message"], error["allow_retry"]) for error in stream.errors] == [
        ("The answer became too long and was ended here.", False)
    ]
    assert len(stream.seen) == 5000
    items = client.call("items.list", thread_id=stream.thread_id, limit=10)["data"]
    kept = [item for item in items if item["type"] == "assistant_message"]
    assert texts(kept) == [stream.seen]
    (turn,) = query(shared_database, f"SELECT state, error_code FROM chat_turns WHERE user_id = 'endless-{words}'")
    assert turn == {"state": "failed", "error_code": "answer_too_long"}
    # And the thread goes on.
    assert client.stream("threads.add_user_message", thread_id=stream.thread_id, input=message("Short?")).wait()


def test_a_hundred_thousand_wrong_elements_do_not_stop_the_others(demo: ChatProcess) -> None:
    """Refused by their number before each of them is looked at."""
    client = demo.client("wrong")
    body = json.dumps(
        {"type": "items.feedback", "params": {"thread_id": "x", "kind": "positive", "item_ids": [1] * 80_000}}
    )
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.send_raw(body.encode()), range(4)))
    assert {answer.status_code for answer in answers} == {400}


def test_a_full_server_says_so_and_stores_nothing(tight: ChatProcess, shared_database: URL) -> None:
    streams = [
        client_of(tight, f"user-{number}").stream("threads.create", input=message(script(words=2000, delay=0.02)))
        for number in range(3)
    ]
    for stream in streams:
        stream.wait_for_text(1)
    ready = http.get(f"{tight.base_url}/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "full")
    refused = client_of(tight, "refused").post("threads.create", input=message("Hello"))
    assert (refused.status_code, refused.json()["code"]) == (503, "server_full")
    assert int(refused.headers["retry-after"]) > 0
    # What needs no turn is served.
    assert client_of(tight, "refused").call("threads.list")["data"] == []
    assert query(shared_database, "SELECT * FROM chat_users WHERE user_id = 'refused'") == []
    for stream in streams:
        stream.disconnect()
    eventually(lambda: http.get(f"{tight.base_url}/health/ready").status_code == 200)
