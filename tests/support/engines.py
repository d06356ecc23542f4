"""Browsers of other makers, each driven by what its package brings: Marionette in Firefox, a WebDriver in WebKitGTK."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.processes import free_port, http

START_SECONDS = 60
STEP_SECONDS = 20
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""By which WebDriver names a reference to an element (https://www.w3.org/TR/webdriver2/#elements)."""


class Engine(Protocol):
    def open(self, url: str) -> None: ...

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript."""

    def type(self, selector: str, text: str) -> None: ...


def until(engine: Engine, condition: str) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not engine.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"{condition}: {engine.evaluate('document.body.innerText')}"
        time.sleep(0.05)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install firefox-esr webkit2gtk-driver xvfb xauth")
    return found


class Firefox:
    """By Marionette: each message is a length, a colon and a JSON document."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")
        self._read()
        self._number = 0
        self._call("WebDriver:NewSession")

    def open(self, url: str) -> None:
        self._call("WebDriver:Navigate", url=url)

    def evaluate(self, script: str) -> Any:
        return self._call("WebDriver:ExecuteScript", script=f"return {script}", args=[])["value"]

    def type(self, selector: str, text: str) -> None:
        found = self._call("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self._call("WebDriver:ElementSendKeys", id=found[ELEMENT], text=text)

    def _call(self, command: str, **parameters: Any) -> Any:
        self._number += 1
        message = json.dumps([0, self._number, command, parameters])
        self._stream.write(f"{len(message)}:{message}".encode())
        self._stream.flush()
        _, number, error, answer = self._read()
        assert (number, error) == (self._number, None), error
        return answer

    def _read(self) -> Any:
        digits = b""
        while (character := self._stream.read(1)) != b":":
            assert character, "Firefox has closed the connection"
            digits += character
        return json.loads(self._stream.read(int(digits)))


@contextmanager
def firefox(directory: Path) -> Iterator[Engine]:
    port = free_port()
    profile = directory / "profile"
    profile.mkdir()
    preferences = {"marionette.port": port, "network.captive-portal-service.enabled": False}
    lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in preferences.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [program("firefox-esr"), "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    with _process(command, HOME=str(directory)) as process, _connected(port, process) as connection:
        yield Firefox(connection)


class WebKit:
    """By the WebDriver of WebKitGTK, which is Safari's engine."""

    def __init__(self, address: str) -> None:
        options = {"binary": str(_mini_browser()), "args": ["--automation"]}
        self._address = address
        made = self._call("", capabilities={"alwaysMatch": {"webkitgtk:browserOptions": options}})
        self._address = f"{address}/{made['sessionId']}"

    def open(self, url: str) -> None:
        self._call("/url", url=url)

    def evaluate(self, script: str) -> Any:
        return self._call("/execute/sync", script=f"return {script}", args=[])

    def type(self, selector: str, text: str) -> None:
        found = self._call("/element", using="css selector", value=selector)
        self._call(f"/element/{found[ELEMENT]}/value", text=text)

    def close(self) -> None:
        http.delete(self._address)

    def _call(self, path: str, **parameters: Any) -> Any:
        answer = http.post(self._address + path, json=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]


def _mini_browser() -> Path:
    found = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
    return found[-1]


@contextmanager
def webkit(directory: Path) -> Iterator[Engine]:
    port = free_port()
    # It draws without a graphics card, and CI has no user namespaces for its sandbox: it only opens our own page.
    own = {"LIBGL_ALWAYS_SOFTWARE": "1", "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "HOME": str(directory)}
    own["WEBKIT_DISABLE_COMPOSITING_MODE"] = "1"
    command = [program("xvfb-run"), "--auto-servernum", program("WebKitWebDriver"), f"--port={port}"]
    with _process(command, **own) as process:
        _connected(port, process).close()
        engine = WebKit(f"http://127.0.0.1:{port}/session")
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def _process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # With all that it starts, so that it can be ended as a whole.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.1)
