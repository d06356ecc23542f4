"""Starts the server and the model server as processes, and talks to them over sockets."""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2

from tests.support.warm_processes import ForkServer, WarmProcess

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90
STOP_SECONDS = 30
CAN_BE_WARM = sys.platform == "linux"

Event = dict[str, Any]

# Shared, because each new client loads all certificates of the machine.
# The client closes an idle connection after two seconds; the server would do so after five, perhaps during a request.
http = httpx2.Client(timeout=60, limits=httpx2.Limits(keepalive_expiry=2))


# Below those that the kernel gives to connections going out, one of which could take a port before its server does; and
# above the last one that browsers do not open (10080).
PORTS = range(11_000, 32_000)


def free_port() -> int:
    while True:
        port = random.SystemRandom().choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def clean_environment(**variables: str) -> dict[str, str]:
    """The caller's environment without the settings of the caller's own server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHAT_", "OPENAI_", "AWS_")) and name != "DATABASE_URL"
    }
    # A coverage tool or a shell may have set PYTHONPATH, which a new process must not inherit.
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | variables


class ModelServer:
    """The scripted model server: a minimal one omits optional fields, a strict one refuses what real APIs refuse."""

    def __init__(self, *, is_minimal: bool = False, is_strict: bool = False) -> None:
        flags = [*(["--minimal"] if is_minimal else []), *(["--strict"] if is_strict else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.model_server", *flags],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = http.get(f"http://127.0.0.1:{self.port}/calls").json()
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@cache
def fork_server() -> ForkServer:
    """The fork server of this test process."""
    made = ForkServer(clean_environment())
    atexit.register(made.close)
    return made


class ChatProcess:
    """A server, ``chatkit-postgres serve``, in its own working directory."""

    is_warm: ClassVar[bool] = CAN_BE_WARM

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        # Plain uvicorn is chosen by the first argument, because keyword arguments are the environment.
        is_uvicorn = arguments[:1] == ("uvicorn",)
        command = () if is_uvicorn else ("chatkit_postgres", "serve")
        self.directory = directory
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"server-{self.port}.log"
        self._log = self.log_path.open("ab")
        settings = clean_environment(CHAT_LOG_FORMAT="json", **environment)
        self.process: subprocess.Popen[bytes] | WarmProcess
        # uvicorn starts worker processes by itself, never from the fork server.
        if self.is_warm and not is_uvicorn and "--workers" not in arguments:
            ordered = ["serve", *arguments, "--port", str(self.port)]
            self.process = fork_server().start(
                ordered, cwd=directory, env=settings, out=self.log_path, err=self.log_path
            )
            return
        self.process = self._started((*command, *arguments), settings)

    def _started(self, arguments: tuple[str, ...], settings: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments, "--port", str(self.port)],
            cwd=self.directory,
            env=settings,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until_ready(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
            with contextlib.suppress(httpx2.TransportError):
                if http.get(f"{self.base_url}/health/ready").status_code == 200:
                    return self
            time.sleep(0.05)
        log = self.log
        # The caller has no reference to this process yet and could not stop it.
        with contextlib.suppress(AssertionError):
            self.stop()
        raise AssertionError(f"the server did not become ready:\n{log}")

    def client(self, user: str) -> "ChatClient":
        response = http.post(f"{self.base_url}/dev/token", json={"user": user})
        return ChatClient(self.base_url, response.json()["token"])

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log}") from None
        finally:
            self._log.close()
        return code


class ColdProcess(ChatProcess):
    """``python -m chatkit_postgres serve``, started without the fork server."""

    is_warm = False


class Stream:
    """Reads one turn's events in a thread; records the events and how the connection ended."""

    def __init__(self, url: str, body: dict[str, Any] | None, headers: dict[str, str]) -> None:
        """With a body it is posted; without one, the stream is got."""
        self.events: list[Event] = []
        self.status: int | None = None
        self.headers: httpx2.Headers | None = None
        self.answer = ""
        self.broke = False
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url, body, headers), daemon=True)
        self._thread.start()

    def _read(self, url: str, body: dict[str, Any] | None, headers: dict[str, str]) -> None:
        waiting = ""
        try:
            with (
                # Plain HTTP, so no certificates: loading them costs more than all else that is done here.
                httpx2.Client(timeout=60, verify=False) as own,
                own.stream("POST" if body is not None else "GET", url, json=body, headers=headers) as response,
            ):
                self.headers = response.headers
                self.status = response.status_code
                for chunk in response.iter_text():
                    self.answer += chunk
                    *frames, waiting = (waiting + chunk).split("\n\n")
                    self.events += [event for frame in frames for event in parse_events(frame)]
                    if self._leaving.is_set():
                        return
        except httpx2.TransportError:
            self.broke = True

    @property
    def seen(self) -> str:
        """The text of all deltas received so far."""
        return "".join(event["update"].get("delta", "") for event in self.events if "update" in event)

    @property
    def errors(self) -> list[Event]:
        return [event for event in self.events if event["type"] == "error"]

    @property
    def thread_id(self) -> str:
        return thread_id_of(self.events)

    def wait_for_text(self, words: int = 1) -> None:
        eventually(lambda: self.seen.count(" ") >= words or not self._thread.is_alive())

    def disconnect(self) -> None:
        """Closes the connection."""
        self._leaving.set()
        self._thread.join(10)

    def wait(self, seconds: float = 60) -> list[Event]:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream did not end"
        return self.events


class ChatClient:
    def __init__(self, base_url: str, token: str) -> None:
        self.url = f"{base_url}/api/chatkit"
        self.headers = {"Authorization": f"Bearer {token}"}

    def post(self, operation: str, **params: Any) -> httpx2.Response:
        return http.post(self.url, json={"type": operation, "params": params}, headers=self.headers, timeout=30)

    def stream(
        self, operation: str, *, key: str | None = None, on_disconnect: str | None = None, **params: Any
    ) -> Stream:
        """Starts a turn; a thread reads its events."""
        more = {"Idempotency-Key": key, "Chat-On-Disconnect": on_disconnect}
        headers = self.headers | {name: value for name, value in more.items() if value}
        return Stream(self.url, {"type": operation, "params": params}, headers)

    def follow(self, thread_id: str) -> Stream:
        """Follows the running turn of a thread; a thread reads its events."""
        return Stream(self._thread_url(thread_id, "live"), None, self.headers)

    def stop(self, thread_id: str) -> httpx2.Response:
        return http.post(self._thread_url(thread_id, "stop"), headers=self.headers, timeout=30)

    def _thread_url(self, thread_id: str, name: str) -> str:
        return f"{self.url.removesuffix('/chatkit')}/threads/{thread_id}/{name}"

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        response = self.post(operation, **params)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def send_raw(self, body: bytes | Iterator[bytes], **headers: str) -> httpx2.Response:
        kind = {"Content-Type": "application/json"}
        return http.post(self.url, content=body, headers=self.headers | kind | headers, timeout=30)

    def events(self, operation: str, **params: Any) -> list[Event]:
        """Runs a turn to its end; returns all of its events."""
        response = self.post(operation, **params)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return parse_events(response.text)

    def create(self, text: str) -> list[Event]:
        return self.events("threads.create", input=message(text))

    def post_message(self, thread_id: str, text: str) -> list[Event]:
        return self.events("threads.add_user_message", thread_id=thread_id, input=message(text))

    def get(self, path: str, **asked: str | int) -> dict[str, Any]:
        response = http.get(f"{self.url.removesuffix('/api/chatkit')}{path}", params=asked, headers=self.headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def items(self, thread_id: str) -> list[dict[str, Any]]:
        return list(self.call("items.list", thread_id=thread_id, order="asc", limit=100)["data"])


def eventually(holds: Callable[[], bool], seconds: float = 30, what: str = "it happens") -> None:
    """Waits until a condition holds that another process brings about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}, within {seconds} s"
        time.sleep(0.03)


def message(text: str) -> dict[str, Any]:
    return {"content": [{"type": "input_text", "text": text}], "attachments": [], "inference_options": {}}


def parse_events(stream: str) -> list[Event]:
    # Not splitlines(): JSON may contain U+2028, which does not end a line of an event stream.
    lines = stream.split("\n")
    # Lines that start with a colon are heartbeats.
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def thread_id_of(events: list[Event]) -> str:
    return str(next(event["thread"]["id"] for event in events if event["type"] == "thread.created"))


def texts(items: list[dict[str, Any]]) -> list[str]:
    """Of the messages."""
    return ["".join(part["text"] for part in item["content"]) for item in items if "content" in item]


def done_items(events: list[Event]) -> list[dict[str, Any]]:
    return [event["item"] for event in events if event["type"] == "thread.item.done"]


def run_cli(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the CLI to its end."""
    if not CAN_BE_WARM:
        return run_cold_cli(directory, *arguments, **environment)
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        process = fork_server().start(
            list(arguments), cwd=directory, env=clean_environment(**environment), out=out, err=err
        )
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def run_cold_cli(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the CLI without the fork server."""
    return subprocess.run(
        [sys.executable, "-m", "chatkit_postgres", *arguments],
        cwd=directory,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
