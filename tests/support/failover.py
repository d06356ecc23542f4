"""Starts a PostgreSQL primary with a standby, and a TCP proxy that can be moved from one to the other."""

import asyncio
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from chatkit_postgres.db.binaries import find_binaries
from chatkit_postgres.db.unprivileged import unprivileged_user
from tests.conftest import execute, query
from tests.support.processes import eventually, free_port

START_SECONDS = 30


class Server:
    """A PostgreSQL server on a port of 127.0.0.1, and on a Unix socket for the tests."""

    def __init__(self, directory: Path, binaries: Path | None) -> None:
        found = find_binaries(binaries)
        assert found is not None
        self.directory = directory
        self.cluster = directory / "cluster"
        self.port = free_port()
        self._programs = found.directory
        directory.mkdir()
        directory.chmod(0o755)
        self._user = unprivileged_user(directory)
        self._user.own(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def url(self, database: str = "postgres") -> URL:
        return URL.create(
            "postgresql+asyncpg", "postgres", database=database, query={"host": str(self.directory), "port": "5432"}
        )

    def make(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self.cluster), "-U", "postgres", "-A", "trust"]
        self._user.run([*command, "-E", "UTF8", "--locale=C", "--no-instructions"], check=True)

    def copy_of(self, other: "Server") -> None:
        """Copies the cluster of the other server, which must not be running, and makes this one its standby."""
        # The account that copies the cluster owns the copy.
        self._user.run(["cp", "-a", str(other.cluster), str(self.cluster)], check=True)
        self.stand_by()

    def stand_by(self) -> None:
        self._user.run(["touch", str(self.cluster / "standby.signal")], check=True)

    def start(self, **settings: str) -> None:
        settings |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.directory)}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        # The name of the socket contains the port; the link gives both servers the same name.
        command = [str(self._programs / "postgres"), "-D", str(self.cluster), "-p", str(self.port), *flags]
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self._process = process = self._user.popen(command, log)
        self.pid = process.pid
        link = self.directory / ".s.PGSQL.5432"
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(f".s.PGSQL.{self.port}")
        eventually(self._answers, START_SECONDS, f"PostgreSQL in {self.directory} answers")

    def _answers(self) -> bool:
        with suppress(OSError, asyncpg.PostgresError):
            return query(self.url(), "SELECT 1 AS one") == [{"one": 1}]
        return False

    def is_replicated(self) -> bool:
        return bool(query(self.url(), "SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"))

    def promote(self) -> None:
        execute(self.url(), "SELECT pg_promote()")

    def kill(self) -> None:
        """Ends the server as if its machine had died."""
        self._signal(signal.SIGKILL)
        # The child processes end by themselves a moment later, and hold the port until then.
        eventually(lambda: not (self.cluster / "postmaster.pid").exists() or not self._children(), START_SECONDS)

    def stop(self) -> None:
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        process.wait(START_SECONDS)
        self._process = None

    def _children(self) -> bool:
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self.cluster).encode() in status.read_bytes():
                    return True
        return False


class Pair:
    def __init__(self, directory: Path, binaries: Path | None) -> None:
        self.first, self.second = Server(directory / "first", binaries), Server(directory / "second", binaries)
        self.first.make()
        self.second.copy_of(self.first)
        # A commit is acknowledged once both servers have it.
        self.first.start(synchronous_standby_names="*")
        follow = f"host=127.0.0.1 port={self.first.port} user=postgres"
        self.second.start(primary_conninfo=follow, hot_standby="on")
        eventually(self.first.is_replicated, START_SECONDS, "the standby follows")

    def close(self) -> None:
        for server in (self.second, self.first):
            with suppress(Exception):
                server.stop()
            shutil.rmtree(server.directory, ignore_errors=True)


class Address:
    """A TCP proxy: its connections go to one server until it is moved to another."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.is_frozen = False
        """Whether the open connections pass no more data; new connections are not affected."""
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self.port = 0
        self._thread.start()
        assert self._ready.wait(10)

    def next_target(self) -> int:
        return self.target

    def freeze(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._frozen.update(self._writers))
        time.sleep(0.05)

    def move(self, port: int, *, cut: bool) -> None:
        self.target = port
        if cut:
            self._loop.call_soon_threadsafe(self._cut)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        async def serve() -> asyncio.Server:
            server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            return server

        server = self._loop.run_until_complete(serve())
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.next_target())
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, other_writer)
        self._writers.update(pair)
        try:
            await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))
        finally:
            for one in pair:
                self._writers.discard(one)
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                if writer not in self._frozen:
                    writer.write(data)
                    await writer.drain()
        with suppress(OSError, RuntimeError):
            if writer not in self._frozen:
                writer.write_eof()


class RoundRobin(Address):
    """A TCP proxy whose connections go to several servers in turn."""

    def __init__(self, *ports: int) -> None:
        self._ports = cycle(ports)
        super().__init__(ports[0])

    def next_target(self) -> int:
        return next(self._ports)
