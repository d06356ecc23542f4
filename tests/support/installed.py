"""Servers of an environment of their own, in which nothing of the checkout is."""

import os
import signal
import subprocess
from pathlib import Path

from tests.support.processes import ChatProcess, clean_environment


def without_checkout(**settings: str) -> dict[str, str]:
    variables = clean_environment(**settings)
    del variables["PYTHONPATH"]
    return variables


class InstalledProcess(ChatProcess):
    """``chatkit-postgres serve`` of an environment, and all processes that it starts."""

    is_warm = False

    def __init__(self, environment: Path, directory: Path, *arguments: str, **settings: str) -> None:
        self.command = str(environment / "bin" / "chatkit-postgres")
        super().__init__(directory, *arguments, **settings)

    def _started(self, arguments: tuple[str, ...], settings: dict[str, str]) -> "subprocess.Popen[bytes]":
        del settings["PYTHONPATH"]
        return subprocess.Popen(
            # Without the module that the checkout would run.
            [self.command, *arguments[1:], "--port", str(self.port)],
            cwd=self.directory,
            env=settings,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """The parent and its workers, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._log.close()


def run_installed(
    environment: Path, directory: Path, *arguments: str, **settings: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(environment / "bin" / "chatkit-postgres"), *arguments],
        cwd=directory,
        env=without_checkout(**settings),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
