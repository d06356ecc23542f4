"""Installs, builds and starts the example with Vite and React."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.nextjs import SHARED, newest, npm, wait_for_page
from tests.support.processes import ROOT, clean_environment

APP = ROOT / "examples" / "vite-react"
SERVER = APP / "dist" / "server" / "main.js"
INSTALLED = APP / "node_modules" / ".package-lock.json"


def build() -> None:
    """Builds the example; skips the test if npm is missing, and fails if the build fails."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed: the example needs Node 24, 22.12 or 20.19")
    with (APP / "package.json").open() as alone:
        # Only one of the test processes builds it.
        fcntl.flock(alone, fcntl.LOCK_EX)
        shared = newest(SHARED)
        if not INSTALLED.exists() or INSTALLED.stat().st_mtime < max(
            shared, (APP / "package-lock.json").stat().st_mtime
        ):
            npm(APP, "ci")
        if not SERVER.exists() or SERVER.stat().st_mtime < max(shared, newest(APP)):
            npm(APP, "run", "types")
            npm(APP, "run", "build")


class ViteApp:
    def __init__(self, port: int, backend: str, secret: str, log: Path) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            ["node", str(SERVER)],  # noqa: S607
            cwd=APP,
            env=clean_environment(PORT=str(port), CHAT_BACKEND_URL=backend, CHAT_JWT_SECRET=secret),
            stdout=self._log,
            stderr=self._log,
        )
        wait_for_page(self.base_url, self._process, log)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
