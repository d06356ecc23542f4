"""The schema in the migrations is the schema in the code, and two deployments may migrate at once."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from chatkit.types import ThreadMetadata
from sqlalchemy import URL, Connection, inspect, text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, migrations
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import WriteSession
from tests.conftest import execute
from tests.support.items import NAIVE
from tests.support.processes import ROOT, clean_environment
from tests.support.sql import sql_connection


def tables(url: URL) -> set[str]:
    async def run() -> set[str]:
        def names(connection: Connection) -> set[str]:
            return set(inspect(connection).get_table_names())

        async with sql_connection(Database(url, pooled=False)) as connection:
            return await connection.run_sync(names)

    return asyncio.run(run())


def test_the_migrations_make_what_the_code_declares(database_url: URL) -> None:
    try:
        command.check(migrations._config(database_url))
    except CommandError as drift:
        pytest.fail(str(drift))


def test_autogenerate_leaves_a_teams_own_tables_alone(database_url: URL) -> None:
    execute(database_url, "CREATE TABLE invoices (id int PRIMARY KEY)", "CREATE INDEX ON invoices (id)")
    command.check(migrations._config(database_url))


def test_the_way_back_leaves_nothing(empty_url: URL) -> None:
    migrations.upgrade(empty_url)
    assert "chat_messages" in tables(empty_url)
    command.downgrade(migrations._config(empty_url), "base")
    assert tables(empty_url) == {"chat_alembic_version"}


@pytest.mark.slow
def test_plain_alembic_upgrade_head_works(empty_url: URL) -> None:
    environment = clean_environment(DATABASE_URL=empty_url.render_as_string(hide_password=False))
    # A token secret is not needed to migrate.
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(alembic, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    assert "chat_turns" in tables(empty_url)


@pytest.mark.slow
def test_alembic_without_a_database_says_what_to_set() -> None:
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(
        alembic, cwd=ROOT, env=clean_environment(), check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "DATABASE_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_migration_does_not_wait_long_for_a_lock_that_the_service_holds(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting ALTER TABLE makes every later query on the table wait behind it."""
    limits: list[str] = []

    def note(operations: MigrationContext, *_: object, **__: object) -> None:
        connection = operations.connection
        limits.append(str(connection.scalar(text("SHOW lock_timeout"))) if connection is not None else "")

    config = migrations._config(empty_url)
    monkeypatch.setattr(MigrationContext, "run_migrations", note)
    await asyncio.to_thread(command.upgrade, config, "head")
    assert limits == ["5s"]


@pytest.mark.slow
def test_two_migrations_at_once_wait_for_each_other(empty_url: URL) -> None:
    environment = clean_environment(DATABASE_URL=empty_url.render_as_string(hide_password=False))

    def migrate(_: int) -> int:
        command_line = [sys.executable, "-m", "chatkit_postgres", "migrate"]
        return subprocess.run(command_line, cwd=ROOT, env=environment, capture_output=True, check=False).returncode

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(migrate, range(3))) == [0, 0, 0]
    assert "chat_turns" in tables(empty_url)


def test_a_database_that_newer_code_has_migrated_is_still_served() -> None:
    """Yesterday's replicas serve until the last of them is replaced."""
    wanted = migrations.head_revision()
    served = {seen: migrations.is_served_by_this_code(seen) for seen in (None, "0001", wanted, "9999")}
    assert served == {None: False, "0001": False, wanted: True, "9999": True}


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["0003"])
async def test_turns_go_on_while_a_migration_runs(empty_url: URL, revision: str) -> None:
    """There and back; each of a turn's beats reads and writes the table that is being changed."""
    config = migrations._config(empty_url)
    await asyncio.to_thread(command.upgrade, config, revision)
    database, store = Database(empty_url), DatabaseStore(Database(empty_url))
    is_over = asyncio.Event()
    beats = 0

    async def beat(number: int) -> None:
        nonlocal beats
        context = RequestContext(user_id=f"user-{number}", session=WriteSession("threads.create"))
        await store.save_thread(ThreadMetadata(id=f"t{number}", created_at=NAIVE), context)
        while not is_over.is_set():
            await store.turns.heartbeat(context)
            beats += 1
            await asyncio.sleep(0)

    async with sql_connection(database) as connection:
        await connection.execute(
            text(
                "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, ended_at)"
                " SELECT 'others', gen_random_uuid(), gen_random_uuid(), 'threads.create', 'completed', now()"
                " FROM generate_series(1, 200000)"
            )
        )
    async with asyncio.TaskGroup() as turns:
        beating = [turns.create_task(beat(number)) for number in range(4)]
        await asyncio.sleep(0.3)
        before = beats
        await asyncio.to_thread(command.upgrade, config, "head")
        await asyncio.to_thread(command.downgrade, config, revision)
        await asyncio.sleep(0.3)
        is_over.set()
    assert all(done.exception() is None for done in beating)
    assert beats > before > 0
    await database.close()
    await store.close()
