"""Readers that hang up, stall, or crawl."""

import json
import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults.harness import (
    Replica,
    Report,
    Witness,
    check_invariants,
    check_usable,
    last_text,
    model_stopped,
    new_user,
    script,
    sent_by_model,
    state_of,
)
from tests.support.processes import ChatClient, done_items, eventually, message, parse_events, texts, thread_id_of


def test_a_reader_that_hangs_up_loses_nothing_it_has_read(
    first: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    client = first.client(user)
    prompt = script(words=2000, delay=0.004, size=moment.randrange(200))
    stream = client.stream("threads.create", input=message(prompt))
    stream.wait_for_text(moment.randrange(1, 120))
    stream.disconnect()
    seen = stream.seen
    witness = Witness(user, stream.thread_id)
    witness.record(stream.events)
    eventually(lambda: state_of(first.database, user) == ["stopped"], 5, "INVARIANT: a turn ends with its last reader")
    model_stopped(first.model, prompt, within=3)
    kept = last_text(client, witness.thread_id)
    assert kept.startswith(seen), "INVARIANT: what was read is kept"
    assert sent_by_model(first.model, prompt).startswith(kept)
    check_usable(witness, client)
    check_invariants(first.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_a_reader_that_is_gone_before_the_first_event_leaves_a_thread_in_order(
    first: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    client = first.client(user)
    witness = Witness(user, thread_id_of(client.create("Hello")))
    prompt = script(words=2000, delay=0.01)
    request_id = client.headers["X-Request-ID"] = f"gone-{user}"
    connection = raw_post(client, "threads.add_user_message", thread_id=witness.thread_id, input=message(prompt))
    del client.headers["X-Request-ID"]
    time.sleep(moment.choice([0, 0, 0.001, 0.005, 0.02]))
    connection.close()
    # On a busy machine the server may not even have read the request by now.
    eventually(lambda: request_id in first.process.log)
    eventually(lambda: "running" not in state_of(first.database, user))
    check_usable(witness, client)
    check_invariants(first.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_a_reader_that_stalls_and_hangs_up_while_the_server_is_blocked_in_send(
    first: Replica, moment: random.Random, record_property: Report
) -> None:
    user = new_user()
    client = first.client(user)
    prompt = script(words=1500, delay=0.003, size=10_000)
    connection = raw_post(client, "threads.create", receive_buffer=4096, input=message(prompt))
    received = b""
    while received.count(b"text_delta") < 2:
        received += connection.recv(4096)
    # 15 MB do not fit into the socket's buffers.
    time.sleep(0.3 + moment.random() / 2)
    connection.close()
    eventually(lambda: state_of(first.database, user) == ["stopped"])
    model_stopped(first.model, prompt, within=3)
    (thread,) = client.call("threads.list")["data"]
    witness = Witness(user, thread["id"])
    kept = last_text(client, witness.thread_id)
    assert kept.startswith("w0x"), "INVARIANT: what was read is kept"
    assert sent_by_model(first.model, prompt).startswith(kept)
    check_usable(witness, client)
    check_invariants(first.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_a_reader_that_falls_behind_gets_all_of_a_long_answer_in_fewer_pieces(
    first: Replica, run: int, record_property: Report
) -> None:
    user = new_user()
    client = first.client(user)
    words, size = 700, 10_000
    prompt = script(words=words, delay=0, size=size)
    connection = raw_post(client, "threads.create", receive_buffer=4096, input=message(prompt))
    received = connection.recv(4096)
    # Seven megabytes: what does not fit into the sockets' buffers waits in the server, where it is merged.
    eventually(lambda: "running" not in state_of(first.database, user), 50)
    while not received.endswith(b"0\r\n\r\n"):
        chunk = connection.recv(1 << 20)
        assert chunk, "the stream broke"
        received += chunk
    connection.close()
    events = parse_events(unchunked(received).decode())
    deltas = [event["update"]["delta"] for event in events if "delta" in event.get("update", {})]
    answer = texts([done_items(events)[1]])[0]
    assert "".join(deltas) == answer
    assert len(answer) > words * size
    assert len(deltas) < words * 0.9
    witness = Witness(user, thread_id_of(events))
    witness.record(events)
    check_invariants(first.database, witness, client)
    record_property("acknowledged", witness.acknowledged)


def test_nothing_is_left_over_when_all_readers_are_gone(first: Replica) -> None:
    eventually(lambda: first.metric("chatkit_running_turns") == 0)
    assert first.metric("chatkit_open_readers") == 0
    # A background task may just be asking.
    eventually(lambda: first.metric("chatkit_database_connections_in_use") == 0)
    # Sockets of clients and models are closed: what is left are logs, pools and listeners.
    descriptors = Path(f"/proc/{first.process.process.pid}/fd")
    if descriptors.exists():
        eventually(lambda: len(list(descriptors.iterdir())) < 60)


def raw_post(client: ChatClient, operation: str, *, receive_buffer: int = 0, **params: object) -> socket.socket:
    """A request on a socket that the test reads, or does not read, by itself."""
    address = urlsplit(client.url)
    body = json.dumps({"type": operation, "params": params}).encode()
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect((address.hostname or "", address.port or 80))
    connection.sendall(head.encode() + b"\r\n" + body)
    return connection


def unchunked(response: bytes) -> bytes:
    """The body of a response in chunked transfer coding."""
    rest, body = response.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if length == 0:
            break
    return body
