"""Bad input gets the designed error before any stream byte, and changes nothing."""

import json
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from tests.support.processes import ChatProcess, http, message

CREATE = {"type": "threads.create", "params": {"input": message("Hello")}}


def create_with(**changes: Any) -> bytes:
    return json.dumps({"type": "threads.create", "params": {"input": message("Hello") | changes}}).encode()


def add_to(thread_id: str) -> bytes:
    params = {"thread_id": thread_id, "input": message("Hello")}
    return json.dumps({"type": "threads.add_user_message", "params": params}).encode()


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "bad_request", "empty"),
        (b"  \n ", 400, "bad_request", "empty"),
        (b"hello", 400, "bad_request", "JSON"),
        (b'{"type": "threads.list"', 400, "bad_request", "JSON"),
        (b"\xff\xfe", 400, "bad_request", "JSON"),
        (b"[" * 100_000, 400, "bad_request", "JSON"),
        (b"[]", 422, "invalid_request", "body"),
        (b"null", 422, "invalid_request", "body"),
        (b"{}", 422, "invalid_request", "type"),
        (b'{"type": "threads.explode", "params": {}}', 422, "invalid_request", "type"),
        (b'{"type": 7, "params": {}}', 422, "invalid_request", "type"),
        (b'{"type": "threads.list"}', 422, "invalid_request", "params"),
        (b'{"type": "threads.create", "params": {}}', 422, "invalid_request", "params.input"),
        (b'{"type": "threads.get_by_id", "params": {"thread_id": 5}}', 422, "invalid_request", "params.thread_id"),
        (b'{"type": "threads.list", "params": {"limit": "many"}}', 422, "invalid_request", "params.limit"),
        (b'{"type": "threads.list", "params": {"order": "up"}}', 422, "invalid_request", "params.order"),
        (create_with(content=[{"type": "input_text", "text": "a\x00b"}]), 422, "invalid_request", "content.0.text"),
        (create_with(content=[{"type": "input_text", "text": " "}]), 422, "invalid_request", "content"),
        (create_with(content=[]), 422, "invalid_request", "content"),
        (create_with(content=[{"type": "input_video", "text": "x"}]), 422, "invalid_request", "content.0"),
        (create_with(attachments=["atc_nowhere"]), 404, "not_found", ""),
        (add_to("thr_nowhere"), 404, "not_found", ""),
        (b'{"type": "threads.get_by_id", "params": {"thread_id": "thr_nowhere"}}', 404, "not_found", ""),
        (b'{"type": "threads.list", "params": {"after": "thr_nowhere"}}', 404, "not_found", ""),
        (b'{"type": "items.list", "params": {"thread_id": "thr_nowhere"}}', 404, "not_found", ""),
        *(
            (
                json.dumps({"type": operation, "params": {"thread_id": "x", "item_id": None, "action": {}}}).encode(),
                422,
                "invalid_request",
                "params.action.type",
            )
            for operation in ("threads.custom_action", "threads.sync_custom_action")
        ),
        (b'{"type": "threads.update", "params": {"thread_id": "x", "title": " "}}', 422, "invalid_request", "title"),
        (create_with(content=[{"type": "input_text", "text": "x" * 300_000}]), 413, "payload_too_large", ""),
    ],
)
def test_a_bad_request_is_named_and_changes_nothing(
    demo: ChatProcess, body: bytes, status: int, code: str, field: str
) -> None:
    client = demo.client("bad-input")
    response = client.send_raw(body)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code), response.text
    assert field in answer["message"]
    assert set(answer) == {"code", "message", "request_id"}
    assert answer["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    assert client.call("threads.list")["data"] == []


def test_a_method_that_an_address_does_not_have(demo: ChatProcess) -> None:
    answer = http.request("DELETE", f"{demo.base_url}/api/attachments/x/content")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, PUT")


def test_a_body_of_undeclared_length_is_counted(demo: ChatProcess) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 1024

    response = demo.client("chunky").send_raw(endless())
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


def test_who_is_still_sending_too_much_can_read_that_it_is(demo: ChatProcess) -> None:
    token = demo.client("slow").headers["Authorization"]
    head = (
        f"POST /api/chatkit HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
    )
    with socket.create_connection(("127.0.0.1", demo.port), timeout=30) as client:
        client.sendall(f"{head}Content-Length: 300000\r\n\r\n".encode() + b"x" * 100_000)
        answers = client.makefile("rb")
        assert _status_of(answers) == 413
        client.sendall(b"x" * 200_000 + b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _status_of(answers) == 200


def _status_of(answers: BinaryIO) -> int:
    """Of the next answer, read to its end: its head and its body may come one after the other."""
    _, status, _ = answers.readline().split(b" ", 2)
    length = 0
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    assert length
    assert len(answers.read(length)) == length
    return int(status)


def test_who_waits_to_be_asked_for_too_much_is_hung_up_on(demo: ChatProcess) -> None:
    """The body never comes, so what comes next must not be taken for it."""
    token = demo.client("patient").headers["Authorization"]
    head = f"POST /api/chatkit HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
    head += "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 300000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", demo.port), timeout=30) as client:
        client.sendall(head.encode())
        answer = b""
        while received := client.recv(65536):
            answer += received
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_unknown_members_of_a_body_are_ignored(demo: ChatProcess) -> None:
    body = json.dumps(CREATE | {"user_id": "somebody-else", "stream": False, "metadata": {"userInfo": {"id": "admin"}}})
    client = demo.client("plain")
    assert client.send_raw(body.encode()).status_code == 200
    assert len(client.call("threads.list")["data"]) == 1
    assert demo.client("somebody-else").call("threads.list")["data"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": "Basic YWxpY2U6YWxpY2U="},
        {"X-User-Id": "alice"},
        {"Cookie": "token=whatever"},
    ],
)
def test_without_a_good_token_nobody_gets_in(demo: ChatProcess, headers: dict[str, str]) -> None:
    response = http.post(f"{demo.base_url}/api/chatkit?userId=alice", json=CREATE, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


def test_two_authorization_headers_are_refused(demo: ChatProcess) -> None:
    token = http.post(f"{demo.base_url}/dev/token", json={"user": "alice"}).json()["token"]
    twice = [("Authorization", f"Bearer {token}")] * 2
    assert http.post(f"{demo.base_url}/api/chatkit", json=CREATE, headers=twice).status_code == 401


def test_an_unknown_address_or_method_has_the_same_shape(demo: ChatProcess) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/api/chatkit", 405), ("PUT", "/dev/token", 405)):
        response = http.request(method, f"{demo.base_url}{path}")
        assert response.status_code == status
        assert set(response.json()) == {"code", "message", "request_id"}


@pytest.mark.parametrize("user", ["", " alice", "a\nb", "x" * 256, 7, None])
def test_no_token_for_an_impossible_user(demo: ChatProcess, user: Any) -> None:
    assert http.post(f"{demo.base_url}/dev/token", json={"user": user}).status_code == 422


def test_a_page_elsewhere_cannot_get_a_token(demo: ChatProcess) -> None:
    rebound = http.post(f"{demo.base_url}/dev/token", json={"user": "alice"}, headers={"Host": "evil.example"})
    assert rebound.status_code == 400
    page = http.post(f"{demo.base_url}/dev/token", json={"user": "alice"}, headers={"Origin": "http://localhost:3000"})
    assert (page.status_code, page.json()["code"]) == (403, "foreign_origin")
    form = http.post(f"{demo.base_url}/dev/token", content=b'{"user": "alice"}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
