"""Creates a PostgreSQL cluster, and reads the state of its server from ``postmaster.pid``."""

import os
import re
import shutil
import socket
import struct
from pathlib import Path

from chatkit_postgres.db.binaries import PostgresBinaries
from chatkit_postgres.db.unprivileged import Unprivileged

PORT = 5432


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be started. The message says why, and what to do."""


def create_cluster(cluster: Path, binaries: PostgresBinaries, user: Unprivileged) -> None:
    """Raises EmbeddedPostgresError."""
    # Into a sibling first: a cluster whose creation was interrupted never gets the real name.
    unfinished = cluster.with_name("cluster.new")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    user.own(unfinished)
    command = [
        str(binaries.directory / "initdb"),
        *("-D", str(unfinished), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
        *("--locale=C", "--data-checksums", "--no-instructions"),
    ]
    done = user.run(command, check=False)
    if b"could not look up effective user ID" in done.stderr:
        raise EmbeddedPostgresError(
            f"initdb needs a name for user id {os.geteuid()}, which has no entry in the passwd database. "
            "Run as a user with a name, or set DATABASE_URL."
        )
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise EmbeddedPostgresError(f"initdb failed: {reason[0]}")
    unfinished.rename(cluster)


class Postmaster:
    """The server of a cluster, by its ``postmaster.pid`` (miscadmin.h, LOCK_FILE_LINE_*)."""

    def __init__(self, cluster: Path) -> None:
        self._file = cluster / "postmaster.pid"

    def recorded_pid(self) -> str | None:
        """It may be the pid of a process that ended long ago."""
        lines = self._lines()
        return lines[0] if lines else None

    def socket_directory(self) -> Path | None:
        lines = self._lines()
        return Path(lines[4]) if len(lines) >= 5 and lines[4] else None

    def running_pid(self) -> int | None:
        """The pid of a server that answers on the cluster's socket."""
        pid, directory = self.recorded_pid(), self.socket_directory()
        if directory is None or pid is None or not re.fullmatch(r"\d+", pid):
            return None
        return int(pid) if _answers(directory / f".s.PGSQL.{PORT}") else None

    def is_ready(self, pid: int) -> bool:
        lines = self._lines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []


def _answers(path: Path) -> bool:
    """Whether a PostgreSQL server answers an SSLRequest on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
            client.sendall(struct.pack("!ii", 8, 80877103))
            return client.recv(1) in {b"N", b"S"}
        except OSError:
            return False
