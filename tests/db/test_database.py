import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, text

from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db import address as address_module
from chatkit_postgres.db import connections as connections_module
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.db.embedded import EmbeddedPostgres
from chatkit_postgres.errors import DatabaseUnavailable
from tests.support.failover import Address, Server
from tests.support.sql import Statements, sql_connection

BACKEND = Statement("backend", "SELECT pg_backend_pid() AS pid, CAST(:owner AS text) AS owner FROM pg_sleep(0.1)")
ONE = Statement("one", "SELECT 1 AS one, CAST(:owner AS text) AS owner")


async def test_nobody_there_is_unavailable() -> None:
    database = Database("postgresql://u@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await database.run("alice", ONE)
    await database.close()


async def test_a_wrong_statement_is_not_repeated_and_does_not_print_its_values(database: Database) -> None:
    seen = Statements(database)
    wrong = Statement("wrong", "SELECT 1 / length('') AS one, CAST(:owner AS text), CAST(:words AS text)", words="text")
    with pytest.raises(asyncpg.DivisionByZeroError) as raised:
        await database.run("alice", wrong, words="my secret")
    assert "my secret" not in str(raised.value)
    assert seen.names == ["wrong"]


@pytest.mark.parametrize("select", ["no_such_column, :owner", "no_such_function(:owner)", "owner FROM no_such_table"])
async def test_a_name_that_the_schema_lacks_is_no_fault_of_the_request(database: Database, select: str) -> None:
    """Of a database that was not migrated."""
    with pytest.raises(DatabaseUnavailable):
        await database.run("alice", Statement("newer", f"SELECT {select}, CAST(:owner AS text) AS owner"))
    assert (await database.run("alice", ONE))[0]["one"] == 1


async def test_a_connection_that_the_server_closed_is_replaced_unnoticed(database: Database) -> None:
    other = Database(database.url, pooled=False)
    # At whichever moment of its end it is met.
    for number in range(20):
        await asyncio.gather(*(database.run("alice", ONE) for _ in range(5)))
        async with sql_connection(other) as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )
        await asyncio.sleep(0.0005 * number)
        for _ in range(6):
            assert (await database.run("alice", ONE))[0]["one"] == 1


@pytest.mark.slow
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


@pytest.mark.parametrize("steps", range(8))
async def test_closing_is_no_error_at_whichever_moment_the_server_goes(database_url: URL, steps: int) -> None:
    database = Database(database_url)
    rows = await asyncio.gather(*(database.run("alice", BACKEND) for _ in range(5)))
    closing = asyncio.create_task(database.close())
    for _ in range(steps):
        await asyncio.sleep(0)
    for pid in {row["pid"] for (row,) in rows}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    # Not asyncio's sleep: the loop must not have read that they are gone.
    time.sleep(0.1)  # noqa: ASYNC251
    await closing


async def test_more_callers_than_connections_wait_for_their_turn(database_url: URL) -> None:
    database = Database(database_url, pool_size=2)
    answers = await asyncio.gather(*(database.run(f"user{n}", ONE) for n in range(50)))
    assert [rows[0]["owner"] for rows in answers] == [f"user{n}" for n in range(50)]
    await database.close()


async def sleeping(transaction: Transaction) -> None:
    await transaction.run("alice", Statement("sleep", "SELECT pg_sleep(60), :owner"))


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_what_is_cancelled_leaves_no_connection_behind(database_url: URL, in_transaction: bool) -> None:
    database = Database(database_url, pool_size=1)
    sleep = Statement("sleep", "SELECT pg_sleep(60), :owner")
    for _ in range(3):
        running = database.run_transaction("t", sleeping) if in_transaction else database.run("alice", sleep)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await running
        async with asyncio.timeout(10):
            assert (await database.run("alice", ONE))[0]["one"] == 1
        assert database.connections_in_use() == 0
    await database.close()


@pytest.mark.slow
async def test_a_statement_that_takes_too_long_is_tried_three_times(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_module, "COMMAND_TIMEOUT_SECONDS", 0.3)
    reasons: list[str] = []
    database = Database(database_url, on_retry=reasons.append)
    with pytest.raises(DatabaseUnavailable):
        await database.run("alice", Statement("sleep", "SELECT pg_sleep(60), :owner"))
    assert reasons == ["TimeoutError"] * 3
    await database.close()


@pytest.mark.parametrize("refused", ["BEGIN", "ROLLBACK", "COMMIT"])
async def test_a_transaction_that_cannot_be_ended_does_not_go_back_to_the_pool(
    database_url: URL, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """As poolers do it: an error, and the connection stays open."""
    database, original = Database(database_url, pool_size=1), asyncpg.Connection.execute

    async def execute(connection: Any, query: str, *given: Any, **more: Any) -> Any:
        return await original(connection, "SELECT 1 / 0" if query.startswith(refused) else query, *given, **more)

    async def work(transaction: Transaction) -> None:
        await transaction.run("alice", ONE)
        if refused == "ROLLBACK":
            raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "execute", execute)
        with pytest.raises(KeyError if refused == "ROLLBACK" else asyncpg.DivisionByZeroError):
            await database.run_transaction("work", work)
    for _ in range(2):
        assert (await database.run("alice", ONE))[0]["one"] == 1
        await database.run_transaction("works", lambda transaction: transaction.run("alice", ONE))
    await database.close()


async def test_a_schema_that_changes_under_a_prepared_statement_is_noticed_by_nobody(database: Database) -> None:
    async with sql_connection(database) as connection:
        await connection.execute(text("CREATE TABLE changing (a int)"))
        every = Statement("every", "SELECT *, :owner AS owner FROM changing")
        await database.run("alice", every)
        await database.run_transaction("t", lambda transaction: transaction.run("alice", every))
        await connection.execute(text("ALTER TABLE changing ADD COLUMN b int"))
    await database.run_transaction("t", lambda transaction: transaction.run("alice", every))
    await database.run("alice", every)


@pytest.fixture
def listening(tmp_path: Path, postgres_bin: Path | None) -> Iterator[Server]:
    """PostgreSQL on a port."""
    tmp_path.chmod(0o755)
    server = Server(tmp_path / "listening", postgres_bin)
    server.make()
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 3, 8])
async def test_idle_connections_that_are_lost_without_a_word_cost_one_retry(
    listening: Server, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    monkeypatch.setattr(connections_module, "IDLE_SECONDS", 0)
    monkeypatch.setattr(connections_module, "PING_SECONDS", 0.5)
    address = Address(listening.port)
    reasons: list[str] = []
    url = f"postgresql://postgres@127.0.0.1:{address.port}/postgres"
    database = Database(url, on_retry=reasons.append)
    both = Statement("both", "SELECT pg_sleep(0.2), :owner AS owner")
    await asyncio.gather(*(database.run("alice", both) for _ in range(connections)))
    address.freeze()
    for _ in range(connections + 2):
        assert (await database.run("alice", ONE))[0]["owner"] == "alice"
    assert reasons == ["ConnectionSilent"]
    await database.close()
    address.close()


async def test_a_read_only_server_uses_up_no_connections(database_url: URL) -> None:
    """As one that is being replaced; each refusal meets a connection that was just opened."""
    database = Database(database_url, pool_size=1)
    read_only = Statement(
        "read_only", "SELECT set_config('default_transaction_read_only', :value, false), :owner", value="text"
    )
    write = Statement("write", "CREATE TABLE written (owner text DEFAULT :owner)")
    for _ in range(3):
        await database.run("alice", read_only, value="on")
        with pytest.raises(DatabaseUnavailable):
            await database.run("alice", write)
        assert database.connections_in_use() == 0
    async with asyncio.timeout(10):
        assert (await database.run("alice", ONE))[0]["one"] == 1
    await database.close()


async def test_a_statement_that_closing_cuts_off_opens_nothing_new(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "CLOSE_SECONDS", 0.2)
    database = Database(database_url, pool_size=2)
    sleep = Statement("sleep", "SELECT pg_sleep(60), :owner")
    running = [asyncio.create_task(database.run("alice", sleep)) for _ in range(4)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(10):
        await database.close()
        results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["DatabaseUnavailable"] * 4
    with pytest.raises(DatabaseUnavailable):
        await database.run("alice", ONE)


async def test_a_connection_that_is_used_all_the_time_is_not_asked_whether_it_lives(database: Database) -> None:
    statements = Statements(database)
    for _ in range(5):
        await database.run("alice", ONE)
    assert statements.names == ["one"] * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "query", ["", "?keepalives=0", "?keepalives_idle=7&keepalives_count=2", "?tcp_user_timeout=0&keepalives_idle=0"]
)
async def test_the_operating_system_looks_after_connections(listening: Server, query: str) -> None:
    database = Database(f"postgresql://postgres@127.0.0.1:{listening.port}/postgres{query}")
    await database.run("alice", ONE)

    async def options_of(connection: Any) -> tuple[int, ...]:
        own = connection._transport.get_extra_info("socket")
        return (own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *_tcp(own))

    options = await database._connections.use(options_of)
    assert options[: len(KEEPALIVE[query])] == KEEPALIVE[query]
    await database.close()


KEEPALIVE: dict[str, tuple[int, ...]] = {
    "": (1, 30, 3, 5000),
    "?keepalives=0": (0,),
    "?keepalives_idle=7&keepalives_count=2": (1, 7, 2, 5000),
    # As the system has it.
    "?tcp_user_timeout=0&keepalives_idle=0": (1,),
}


def _tcp(own: socket.socket) -> list[int]:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    return [own.getsockopt(socket.IPPROTO_TCP, name) for name in names]
