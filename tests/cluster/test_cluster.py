"""On a real Citus cluster, which CHAT_TEST_CITUS_URL names: `distribute`, and what the rules say of statements."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from chatkit_postgres.cli import cli
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, migrations
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.db.distribution import CannotDistribute, cluster_at, distribute
from chatkit_postgres.db.tables import VERSION_TABLE, metadata
from chatkit_postgres.store import DatabaseStore
from tests.cluster.rules import RULES, Rule, run_counterexample
from tests.support.chat import stored
from tests.support.items import thread, user_message

pytestmark = [pytest.mark.citus, pytest.mark.slow]

USERS = 20


def on(url: URL, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        connection = await connector(url)()
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def execute(url: URL, *commands: str) -> None:
    async def run(connection: Any) -> None:
        for command in commands:
            await connection.execute(command)

    on(url, run)


@pytest.fixture
def undistributed(cluster: URL) -> URL:
    """Without any table, as before the first migration."""
    execute(cluster, *(f"DROP TABLE IF EXISTS {name} CASCADE" for name in (VERSION_TABLE, *metadata.tables)))
    return cluster


def fill(url: URL) -> None:
    async def run() -> None:
        store = DatabaseStore(Database(url, pooled=False))
        for number in range(USERS):
            context = RequestContext(f"user-{number}")
            await store.save_thread(thread("t"), context)
            await store.add_thread_item("t", user_message("t", "m", f"PEARL {number}"), context)

    asyncio.run(run())


def contents(url: URL) -> list[str]:
    async def run() -> list[str]:
        store = DatabaseStore(Database(url, pooled=False))
        return [row["content"] for row in await stored(store, "SELECT content FROM chat_messages ORDER BY user_id")]

    return asyncio.run(run())


@pytest.mark.parametrize("rows", [USERS, 0])
def test_a_migrated_database_is_distributed_with_its_rows(undistributed: URL, rows: int) -> None:
    migrations.upgrade(undistributed)
    if rows:
        fill(undistributed)
    before = contents(undistributed)
    steps = distribute(undistributed)
    assert {step.table for step in steps} == set(metadata.tables)
    assert sum(step.rows for step in steps if step.table == "chat_messages") == len(before) == rows
    assert contents(undistributed) == before
    # What was copied is not left on the coordinator.
    assert on(undistributed, lambda connection: connection.fetchval("SELECT pg_relation_size('chat_messages')")) == 0
    assert distribute(undistributed) == []
    cluster = cluster_at(undistributed)
    assert cluster is not None
    assert cluster.is_distributed
    assert cluster.missing == []


def test_a_table_that_is_in_use_stops_it_and_changes_nothing(
    undistributed: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatkit_postgres.db.distribution.WAIT_FOR_TABLE_LOCK", "100ms")
    migrations.upgrade(undistributed)
    fill(undistributed)

    async def hold(connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("LOCK TABLE chat_messages IN ROW EXCLUSIVE MODE")
            with pytest.raises(CannotDistribute, match="nothing was changed"):
                await asyncio.to_thread(distribute, undistributed)

    on(undistributed, hold)
    cluster = cluster_at(undistributed)
    assert cluster is not None
    assert cluster.spread == set()
    assert len(contents(undistributed)) == USERS


def test_the_commands_know_a_cluster(undistributed: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", undistributed.render_as_string(hide_password=False))
    runner = CliRunner()
    assert "run chatkit-postgres migrate first" in str(runner.invoke(cli, ["distribute"]).exception)
    assert runner.invoke(cli, ["migrate"]).exit_code == 0
    assert "in a Citus cluster, not distributed yet" in runner.invoke(cli, ["check"]).output
    told = runner.invoke(cli, ["distribute"])
    assert told.exit_code == 0
    assert "chat_messages      distributed by user_id, 0 rows" in told.output
    assert "distributed over 2 nodes by Citus" in runner.invoke(cli, ["check"]).output
    # As a migration leaves a table that it has made.
    execute(undistributed, "SELECT undistribute_table('chat_partial_log')")
    assert "chat_partial_log: run chatkit-postgres distribute" in runner.invoke(cli, ["check"]).output
    told = runner.invoke(cli, ["migrate"])
    assert told.exit_code == 0
    assert "chat_partial_log: distributed by user_id" in told.output
    assert "All tables were distributed" in runner.invoke(cli, ["distribute"]).output


@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_the_cluster_refuses_the_counterexample(rule: Rule, database: Database) -> None:
    # Each is accepted without a cluster: test_statements.py.
    with pytest.raises(asyncpg.PostgresError) as refused:
        await run_counterexample(database, rule)
    assert not isinstance(refused.value, asyncpg.IntegrityConstraintViolationError | asyncpg.UndefinedColumnError)
