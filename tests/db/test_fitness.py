"""A database that does not fit is refused in a sentence, before anything is lost in it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.db.fitness import OLDEST_VERSION, misfits_of, obstacles_to_migration
from tests.conftest import execute, fresh_database
from tests.faults.harness import SECRET
from tests.support.processes import ChatProcess, free_port, run_cli

ENCODINGS = ["SQL_ASCII", "LATIN1", "EUC_JP"]
FITS = {
    "version": "18.1",
    "major": 18,
    "encoding": "UTF8",
    "is_durable": True,
    "is_read_only": False,
    "name": "chat",
    "role": "app",
    "schema": "public",
    "search_path": '"$user", public',
    "may_create": True,
    "tables_in": "public",
    "owns_tables": True,
    "denied": [],
}


@pytest.fixture(params=ENCODINGS)
def other_encoding(request: pytest.FixtureRequest, postgres: URL) -> Iterator[URL]:
    origin = f"ENCODING '{request.param}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    with fresh_database(postgres, origin) as url:
        yield url


def settings_for(url: URL) -> dict[str, str]:
    return {"DATABASE_URL": url.render_as_string(hide_password=False), "CHAT_JWT_SECRET": SECRET}


def test_another_encoding_is_refused_by_each_command(tmp_path: Path, other_encoding: URL) -> None:
    settings = settings_for(other_encoding)
    migrated = run_cli(tmp_path, "migrate", **settings)
    assert migrated.returncode != 0
    assert "which cannot hold every character" in migrated.stderr
    assert "Traceback" not in migrated.stderr
    checked = run_cli(tmp_path, "check", **settings)
    assert checked.returncode == 1
    assert "which cannot hold every character" in checked.stdout


def test_a_start_on_another_encoding_ends(tmp_path: Path, other_encoding: URL) -> None:
    for command in ((), ("uvicorn", "--factory", "app.main:create_app")):
        process = ChatProcess(tmp_path, *command, **settings_for(other_encoding))
        assert process.process.wait(90) != 0
        process.stop()
        assert "which cannot hold every character" in process.log


@pytest.fixture
def narrow(database_url: URL, empty_url: URL) -> Iterator[URL]:
    """For a role with a name that must be quoted, which may log in and nothing else."""
    for url in (database_url, empty_url):
        execute(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    execute(database_url, 'CREATE ROLE "chat-app" LOGIN')
    yield database_url.set(username="chat-app")
    for url in (database_url, empty_url):
        execute(url, 'DROP OWNED BY "chat-app"')
    execute(database_url, 'DROP ROLE "chat-app"')


GRANTS = {
    "none": ("", "chat_allowances: SELECT"),
    "reads": ("SELECT", "chat_approvals: INSERT"),
    "no deletion": ("SELECT, INSERT, UPDATE", "chat_approvals: DELETE"),
}


@pytest.mark.parametrize("kind", GRANTS)
def test_rights_that_are_missing_are_named_with_the_cure(tmp_path: Path, narrow: URL, kind: str) -> None:
    granted, missing = GRANTS[kind]
    owner = narrow.set(username="postgres")
    if granted:
        execute(owner, f'GRANT {granted} ON ALL TABLES IN SCHEMA public TO "chat-app"')
    settings = settings_for(narrow)
    checked = run_cli(tmp_path, "check", **settings)
    assert checked.returncode == 1
    assert missing in checked.stdout
    cure = checked.stdout[checked.stdout.index("GRANT") :].split(".")[0]
    started = run_cli(tmp_path, "serve", "--port", str(free_port()), **settings)
    assert (started.returncode, "Traceback" in started.stderr) == (2, False)
    assert "lacks rights on our tables" in started.stderr
    execute(owner, cure)
    assert "lacks rights" not in run_cli(tmp_path, "check", **settings).stdout
    # It may run `migrate` at each start, as long as there is nothing to do.
    assert run_cli(tmp_path, "migrate", **settings).returncode == 0


def test_what_a_migration_needs_is_asked_before_one(tmp_path: Path, narrow: URL, empty_url: URL) -> None:
    empty = empty_url.set(username="chat-app")
    refused = run_cli(tmp_path, "migrate", **settings_for(empty))
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert 'GRANT CREATE ON SCHEMA public TO "chat-app"' in refused.stderr
    execute(empty_url, 'GRANT CREATE ON SCHEMA public TO "chat-app"')
    assert run_cli(tmp_path, "migrate", **settings_for(empty)).returncode == 0
    off, name = "SET default_transaction_read_only = off", empty_url.database
    old = "UPDATE chat_alembic_version SET version_num = '0003'"
    execute(empty_url, old, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is read-only" in run_cli(tmp_path, "migrate", **settings_for(empty)).stderr
    execute(empty_url, off, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    owner = narrow.set(username="postgres")
    execute(
        owner,
        'GRANT ALL ON ALL TABLES IN SCHEMA public TO "chat-app"',
        "UPDATE chat_alembic_version SET version_num = '0003'",
    )
    assert "does not own our tables" in run_cli(tmp_path, "migrate", **settings_for(narrow)).stderr


def test_a_database_of_newer_code_is_left_alone(tmp_path: Path, database_url: URL) -> None:
    execute(database_url, "UPDATE chat_alembic_version SET version_num = '0099'")
    migrated = run_cli(tmp_path, "migrate", **settings_for(database_url))
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert "at revision 0099, which is newer than" in migrated.stdout


@pytest.mark.parametrize("command", ["migrate", "check"])
def test_nobody_there_is_a_sentence(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:hunter2@127.0.0.1:{silent.getsockname()[1]}/d?connect_timeout=1"
        done = run_cli(tmp_path, command, DATABASE_URL=url, CHAT_JWT_SECRET=SECRET)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ({"major": OLDEST_VERSION - 1, "version": "14.2"}, "PostgreSQL 14.2 is too old: 15 or newer is needed."),
        ({"schema": None}, "may use no schema of its search_path"),
        ({"encoding": "LATIN1"}, "is encoded in LATIN1"),
        ({"denied": ["chat_turns: UPDATE"]}, "lacks rights on our tables (chat_turns: UPDATE)"),
    ],
)
def test_each_is_one_sentence(differs: dict[str, object], expected: str) -> None:
    (sentence,) = misfits_of(FITS | differs)
    assert expected in sentence


@pytest.mark.parametrize("differs", [{"is_read_only": True}, {"owns_tables": False}, {"may_create": False}])
def test_what_keeps_a_migration_does_not_keep_from_serving(differs: dict[str, object]) -> None:
    assert len(obstacles_to_migration(FITS | differs)) == 1
    assert misfits_of(FITS | differs) == []


def test_what_fits_is_taken() -> None:
    assert misfits_of(FITS) == obstacles_to_migration(FITS) == []
