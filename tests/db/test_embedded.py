"""The embedded server: whoever is killed, nothing acknowledged is lost and nobody fights."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from chatkit_postgres.db import Database
from chatkit_postgres.db.cluster import EmbeddedPostgresError
from chatkit_postgres.db.embedded import EmbeddedPostgres
from tests.support.processes import ROOT, clean_environment
from tests.support.sql import sql_connection

OWNER = """
import sys, time
from pathlib import Path
from chatkit_postgres.db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), binaries=Path(sys.argv[2]) if sys.argv[2] else None)
server.start()
print("up", flush=True)
time.sleep(300)
"""


def ask(url: URL, question: str) -> object:
    async def run() -> object:
        database = Database(url, pooled=False)
        async with sql_connection(database) as connection:
            result = await connection.execute(text(question))
            return result.scalar() if result.returns_rows else None

    return asyncio.run(run())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


def test_a_cluster_is_made_once_and_found_again(directory: Path, postgres_bin: Path | None) -> None:
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    ask(server.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    server.stop()
    again = EmbeddedPostgres(directory, binaries=postgres_bin)
    try:
        assert ask(again.start(), "SELECT answer FROM kept") == 42
        assert ask(again.url, "SHOW data_checksums") == "on"
        assert ask(again.url, "SHOW listen_addresses") == ""
    finally:
        again.stop()


def test_a_server_whose_owner_was_killed_is_taken_over(directory: Path, postgres_bin: Path | None) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory), str(postgres_bin or "")],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    with pytest.raises(EmbeddedPostgresError, match=f"pid {owner.pid}"):
        EmbeddedPostgres(directory, binaries=postgres_bin).start()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    pid_file = directory / "cluster" / "postmaster.pid"
    orphan = pid_file.read_text().splitlines()[0]
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    assert ask(server.start(), "SELECT 1") == 1
    assert pid_file.read_text().splitlines()[0] == orphan
    server.stop()
    assert not pid_file.exists()


def test_a_pid_file_left_by_a_killed_server_is_not_believed(directory: Path, postgres_bin: Path | None) -> None:
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    server.start()
    server.stop()
    # Of a process that is alive and not PostgreSQL: us.
    stale = [
        str(os.getpid()),
        str(directory / "cluster"),
        "1",
        "5432",
        str(directory / "socket"),
        "",
        "  1  1",
        "ready",
    ]
    (directory / "cluster" / "postmaster.pid").write_text("\n".join(stale) + "\n")
    again = EmbeddedPostgres(directory, binaries=postgres_bin)
    assert again.running_url() is None
    try:
        assert ask(again.start(), "SELECT 1") == 1
    finally:
        again.stop()


def test_a_killed_server_is_started_again(directory: Path, postgres_bin: Path | None) -> None:
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    url = server.start()
    try:
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid_file = directory / "cluster" / "postmaster.pid"
        killed = int(pid_file.read_text().splitlines()[0])
        os.kill(killed, signal.SIGKILL)
        for _ in range(600):
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) > 7 and lines[0] != str(killed) and lines[7].strip() == "ready":
                break
            asyncio.run(asyncio.sleep(0.05))
        assert ask(url, "SELECT answer FROM kept") == 42
    finally:
        server.stop()


def test_a_half_made_cluster_does_not_count(directory: Path, postgres_bin: Path | None) -> None:
    half = directory / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("99")
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    try:
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        server.stop()


def test_a_cluster_of_another_version_is_refused_with_the_cure(directory: Path, postgres_bin: Path | None) -> None:
    cluster = directory / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 9"):
        EmbeddedPostgres(directory, binaries=postgres_bin).start()


@pytest.mark.parametrize("name", ['it\'s a "path", yes', "with:colon", "z" * 150])
def test_any_path_will_do(tmp_path: Path, postgres_bin: Path | None, name: str) -> None:
    server = EmbeddedPostgres(tmp_path / name, binaries=postgres_bin)
    try:
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        server.stop()


def test_variables_of_the_callers_own_postgresql_do_not_matter(
    directory: Path, postgres_bin: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGHOST": "nowhere", "PGOPTIONS": "-c x=y"}.items():
        monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(directory, binaries=postgres_bin)
    try:
        server.start()
        for name in ("PGPORT", "PGHOST", "PGOPTIONS", "PGDATA"):
            monkeypatch.delenv(name)
        assert ask(server.url, "SELECT 1") == 1
    finally:
        server.stop()
