"""The commands that the documents print, and the shell into which they are pasted."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from tests.support.processes import ChatClient, clean_environment, eventually, http

FENCED = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n)+)")
KINDS = {"bash", "sh", "bash runnable", "json", "python", "text", "js"}
"""Of blocks. Those with commands are the first two; those that are marked runnable run elsewhere."""
START_SECONDS = 200
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")


def commands_of(document: Path) -> list[list[str]]:
    """The blocks of a document that are pasted into a shell or a `.env`, as lines without their comments. Blocks that
    are marked runnable are not among them."""
    text = document.read_text()
    fenced = FENCED.findall(text)
    assert {kind for kind, _ in fenced} <= KINDS, document
    blocks = [content for kind, content in fenced if kind in {"bash", "sh"}]
    blocks += INDENTED.findall(FENCED.sub("", text))
    return [[_command(line) for line in block.splitlines() if line.strip()] for block in blocks]


def _command(line: str) -> str:
    return re.sub(r"\s{2,}#.*", "", line).strip()


def pasted(
    script: str, directory: Path, variables: Mapping[str, str] | None = None, *, binaries: Path | None = None
) -> str:
    """What it prints. Raises AssertionError if it fails."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=_environment(binaries, variables or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def serving(
    script: str,
    port: int,
    directory: Path,
    variables: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    binaries: Path | None = None,
) -> Iterator[ChatClient]:
    """A script whose last command serves, until Ctrl+C is pressed. Its log is in ``directory``."""
    log = directory / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=cwd or directory,
            env=_environment(binaries, variables or {}),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    base_url = f"http://localhost:{port}"
    try:
        eventually(lambda: is_ready(base_url) or shell.poll() is not None, START_SECONDS, what="it serves")
        assert shell.poll() is None, "it has ended"
        token = http.post(f"{base_url}/dev/token", json={"user": "alice"}).json()["token"]
        yield ChatClient(base_url, token)
        os.killpg(shell.pid, signal.SIGINT)
        shell.wait(30)
        assert "Traceback" not in log.read_text()
    except BaseException as error:
        error.add_note(log.read_text()[-5000:])
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        # Of a server that was killed: its PostgreSQL has a session of its own.
        for left in directory.rglob("postmaster.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(left.read_text().split()[0]), signal.SIGQUIT)


def is_ready(base_url: str) -> bool:
    try:
        return http.get(f"{base_url}/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def _environment(binaries: Path | None, variables: Mapping[str, str]) -> dict[str, str]:
    """Of a shell in which nothing of this run of the tests is, and `chatkit-postgres` is a command."""
    kept = clean_environment(**variables)
    first = binaries or Path(sys.executable).parent
    mine = {name: value for name, value in kept.items() if name not in {*OF_MAKE, "PYTHONPATH"}}
    return mine | {"PATH": f"{first}{os.pathsep}{kept['PATH']}"}
