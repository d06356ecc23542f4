"""The schema in the migrations is the schema in the code, and two deployments may migrate at once."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import URL, Connection, inspect, text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, migrations
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.session import WriteSession
from tests.conftest import execute
from tests.support.items import user_message
from tests.support.processes import ROOT, clean_environment
from tests.support.sql import sql_connection

OPEN_TURN = """
WITH owner AS (INSERT INTO chat_users (user_id) VALUES (:user)), turn AS (
  INSERT INTO chat_turns (user_id, session_id, turn_id, operation) VALUES (:user, :session, :turn, 'threads.create'))
INSERT INTO chat_sessions (user_id, session_id, thread_id, current_turn_id) VALUES (:user, :session, :thread, :turn)
"""
"""As the code before a migration has written it."""

FILL = """
WITH owner AS (INSERT INTO chat_users (user_id) VALUES ('alice')), thread AS (
  INSERT INTO chat_sessions (user_id, session_id, thread_id, title, next_position)
  VALUES ('alice', :session, 't', 'An old title', 3001))
INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type, content, item)
SELECT 'alice', :session, gen_random_uuid(), 'm' || number, number, 'user', 'user_message', 'PEARL ' || number,
       CAST(:item AS jsonb) || jsonb_build_object('id', 'm' || number, 'content', jsonb_build_array(
         jsonb_build_object('type', 'input_text', 'text', 'PEARL ' || number)))
  FROM generate_series(1, 3000) number
"""


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
    sessions = [WriteSession("threads.create", thread_id=f"t{number}") for number in range(4)]

    async def beat(session: WriteSession, user: str) -> None:
        nonlocal beats
        context = RequestContext(user_id=user, session=session)
        while not is_over.is_set():
            await store.turns.heartbeat(context)
            beats += 1
            await asyncio.sleep(0)

    async with sql_connection(database) as connection:
        await connection.execute(
            text(
                "INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, ended_at)"
                " SELECT 'others', gen_random_uuid(), gen_random_uuid(), 'threads.create', 'completed', now()"
                " FROM generate_series(1, 100000)"
            )
        )
        for number, session in enumerate(sessions):
            ids = {"session": session_uuid(f"t{number}"), "turn": session.turn_id, "thread": f"t{number}"}
            await connection.execute(text(OPEN_TURN), {"user": f"user-{number}"} | ids)
    async with asyncio.TaskGroup() as turns:
        beating = [turns.create_task(beat(session, f"user-{number}")) for number, session in enumerate(sessions)]
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


async def test_what_was_there_before_search_is_indexed_while_the_service_runs(empty_url: URL) -> None:
    config = migrations._config(empty_url)
    await asyncio.to_thread(command.upgrade, config, "0006")
    store, alice = DatabaseStore(Database(empty_url)), RequestContext("alice")
    item = user_message("t", "m").model_dump_json()
    async with sql_connection(store.database) as connection:
        await connection.execute(text(FILL), {"session": session_uuid("t"), "item": item})
    await asyncio.to_thread(command.upgrade, config, "head")
    filling = asyncio.create_task(store.search_index.fill())
    written = 0
    while not filling.done():
        await store.add_thread_item("t", user_message("t", f"new{written}", f"DIAMOND{written} in time"), alice)
        written += 1
        await asyncio.sleep(0.05)
    assert await filling == 3001
    assert written > 3
    for number in (0, written - 1):
        hits = (await store.search.search(f"diamond{number}", alice)).data
        assert [hit.item_id for hit in hits] == [f"new{number}"]
    for number in (1, 1500, 3000):
        assert [hit.item_id for hit in (await store.search.search(f"pearl {number}", alice)).data] == [f"m{number}"]
    assert [hit.title for hit in (await store.search.search("old title", alice)).data] == ["An old title"]
    await store.close()
