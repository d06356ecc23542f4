"""Installs, builds and starts the Next.js example; and a TCP proxy that can cut a connection."""

import fcntl
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import ROOT, clean_environment, free_port

APP = ROOT / "examples" / "nextjs"
SHARED = ROOT / "examples" / "front-end"
"""Is copied into its ``node_modules``."""
SERVER = APP / ".next" / "standalone" / "server.js"
INSTALLED = APP / "node_modules" / ".package-lock.json"
START_SECONDS = 90


def build() -> None:
    """Builds the example; skips the test if npm is missing, and fails if the build fails."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed: the Next.js example needs Node 20.12 or newer")
    with (APP / "package.json").open() as alone:
        # Only one of the test processes builds it.
        fcntl.flock(alone, fcntl.LOCK_EX)
        _install_and_build()


def _install_and_build() -> None:
    shared = newest(SHARED)
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < max(shared, (APP / "package-lock.json").stat().st_mtime):
        npm(APP, "ci")
    if not SERVER.exists() or SERVER.stat().st_mtime < max(shared, newest(APP)):
        shutil.rmtree(APP / ".next", ignore_errors=True)
        npm(APP, "run", "build")


def newest(folder: Path) -> float:
    """When the newest source was changed."""
    return max(
        path.stat().st_mtime
        for path in folder.rglob("*")
        if path.is_file()
        and not {"node_modules", ".next", "dist"} & set(path.relative_to(folder).parts)
        and path.suffix in (".ts", ".tsx", ".css", ".json", ".html")
        and "next-env" not in path.name
    )


def npm(app: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["npm", *arguments],  # noqa: S607 - from the PATH, as its users run it
        cwd=app,
        env=clean_environment(NEXT_TELEMETRY_DISABLED="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def wait_for_page(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(url, timeout=30).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the app did not start:\n{log.read_text()}")


class NextApp:
    def __init__(self, port: int, backend: str, secret: str, log: Path) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            ["node", str(SERVER)],  # noqa: S607
            cwd=SERVER.parent,
            env=clean_environment(
                PORT=str(port),
                HOSTNAME="127.0.0.1",
                NEXT_TELEMETRY_DISABLED="1",
                CHAT_BACKEND_URL=backend,
                CHAT_JWT_SECRET=secret,
            ),
            stdout=self._log,
            stderr=self._log,
        )
        wait_for_page(self.base_url, self.process, log)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Wire:
    """A TCP proxy for a server on this machine that cuts a connection in the middle of a response on request."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = int(self._listener.getsockname()[1])
        self._cut_at: bytes | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_once_at(self, text: bytes) -> None:
        """Cuts the next connection whose response contains the text, before that text."""
        self._cut_at = text

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_answer and self._cut_at is not None and self._cut_at in data:
                    self._cut_at = None
                    self.cuts += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # Each of the two threads closes the socket from which it reads.
        source.close()
