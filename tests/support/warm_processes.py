"""Starts servers and commands quickly, by forking a process that has imported everything.

Importing the SDKs takes two seconds of CPU, and the tests start hundreds of servers and commands. A forked process is
like any other: it has its own pid, event loop, sockets and database connections, and is killed and waited for in the
same way. tests/acceptance/test_lives_of_a_server.py tests a start without the fork server.

``python -m tests.support.warm_processes FD`` is the fork server; it ends when its socket is closed.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


class WarmProcess:
    """The part of ``subprocess.Popen`` that the tests use."""

    def __init__(self, pid: int, fork_server: "ForkServer") -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fork_server = fork_server
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        # The pid cannot be reused before the process has been waited for.
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], seconds)[0]:
            self.returncode = self._fork_server.ask({"wait": self.pid})["code"]
            os.close(self._ended)
        return self.returncode


class ForkServer:
    """The test's connection to the fork server."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm_processes", str(theirs.fileno())],
            cwd=ROOT,
            env=environment,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._socket = ours
        self._answers = ours.makefile("rb")
        self._one_at_a_time = threading.Lock()

    def start(self, arguments: list[str], *, cwd: Path, env: dict[str, str], out: Path, err: Path) -> WarmProcess:
        answer = self.ask({"start": arguments, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err)})
        return WarmProcess(answer["pid"], self)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._one_at_a_time:
            self._socket.sendall(json.dumps(question).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._answers.readline())
            return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait(30)


def main() -> None:
    import uvloop

    import chatkit_postgres.api.http_protocol
    import chatkit_postgres.cli
    import chatkit_postgres.main
    import tests.support.assistants

    _ = (chatkit_postgres, tests.support.assistants, uvloop)
    assert threading.active_count() == 1, "a thread does not come along when its process is forked"
    # The children's garbage collector need not traverse the imported modules.
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    for line in control.makefile("rb"):
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        elif (pid := os.fork()) == 0:
            _be_a_process(question, control)
        else:
            answer = {"pid": pid}
        control.sendall(json.dumps(answer).encode() + b"\n")


def _be_a_process(question: dict[str, Any], control: socket.socket) -> NoReturn:
    from chatkit_postgres.cli import main as run

    control.close()
    os.chdir(question["cwd"])
    os.environ.clear()
    os.environ.update(question["env"])
    for stream, path in ((1, question["out"]), (2, question["err"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["chatkit-postgres", *question["start"]]
    code = 0
    try:
        run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
