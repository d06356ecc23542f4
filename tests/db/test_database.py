import asyncio
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from app.db import Database, Statement
from app.db.database import normalised_url
from app.db.embedded import EmbeddedPostgres
from app.errors import DatabaseUnavailable

ONE = Statement("one", "SELECT 1 AS one, CAST(:owner AS text) AS owner")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_the_urls_that_providers_print_are_accepted(scheme: str) -> None:
    url = normalised_url(f"{scheme}://u:p@host:5433/db?sslmode=require")
    assert url.drivername == "postgresql+asyncpg"
    assert (url.host, url.port, url.database, url.query) == ("host", 5433, "db", {"ssl": "require"})


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:secret@h/d", "postgresql+psycopg2://h/d", "http://h"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match=r"not a (PostgreSQL|database) URL") as refused:
        normalised_url(url)
    assert "secret" not in str(refused.value)


async def test_nobody_there_is_unavailable() -> None:
    database = Database("postgresql://u@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await database.run("alice", ONE)
    await database.close()


async def test_a_wrong_statement_is_not_repeated_and_does_not_print_its_values(database: Database) -> None:
    with pytest.raises(Exception, match="does_not_exist") as raised:
        await database.run("alice", Statement("wrong", "SELECT does_not_exist, :owner, :words"), words="my secret")
    assert "my secret" not in str(raised.value)


async def test_a_connection_that_the_server_closed_is_replaced_unnoticed(database: Database) -> None:
    await asyncio.gather(*(database.run("alice", ONE) for _ in range(5)))
    other = Database(database.engine.url, pooled=False)
    async with other.connection() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    for _ in range(6):
        assert (await database.run("alice", ONE))[0]["one"] == 1


async def test_a_restart_of_the_server_is_survived(tmp_path: Path, postgres_bin: Path | None) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", binaries=postgres_bin)
    url: URL = await asyncio.to_thread(server.start)
    database = Database(url)
    try:
        await database.run("alice", ONE)
        os.kill(int((server.cluster / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await database.run("alice", ONE))[0]["owner"] == "alice"
                    break
                except DatabaseUnavailable:
                    continue
    finally:
        await database.close()
        await asyncio.to_thread(server.stop)


async def test_more_callers_than_connections_wait_for_their_turn(database_url: URL) -> None:
    database = Database(database_url, pool_size=2)
    answers = await asyncio.gather(*(database.run(f"user{n}", ONE) for n in range(50)))
    assert [rows[0]["owner"] for rows in answers] == [f"user{n}" for n in range(50)]
    await database.close()
