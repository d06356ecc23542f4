"""A database that does not fit is refused in a sentence, before anything is lost in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from app.db.fitness import OLDEST_VERSION, misfits_of
from tests.conftest import execute, fresh_database
from tests.faults.harness import SECRET
from tests.support.processes import ChatProcess, run_cli

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
    "may_create": True,
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
    process = ChatProcess(tmp_path, **settings_for(other_encoding))
    assert process.process.wait(30) != 0
    process.stop()
    assert "which cannot hold every character" in process.log


@pytest.mark.parametrize("migrated", [False, True])
def test_rights_that_are_missing_are_named(tmp_path: Path, empty_url: URL, database_url: URL, migrated: bool) -> None:
    url = database_url if migrated else empty_url
    execute(url, "CREATE ROLE narrow LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        if migrated:
            execute(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO narrow")
        settings = settings_for(url.set(username="narrow"))
        checked = run_cli(tmp_path, "check", **settings)
        said = checked.stdout if migrated else run_cli(tmp_path, "migrate", **settings).stderr
        if migrated:
            assert "The role narrow lacks rights on our tables (chat_attachments: INSERT" in said
        else:
            assert "GRANT CREATE ON SCHEMA public TO narrow" in said
        assert checked.returncode == 1
    finally:
        execute(url, "DROP OWNED BY narrow", "DROP ROLE narrow")


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"major": OLDEST_VERSION - 1, "version": "14.2"}, "PostgreSQL 14.2 is too old: 15 or newer is needed."),
        ({"schema": None}, "No schema of the search_path exists"),
        ({"encoding": "LATIN1"}, "is encoded in LATIN1"),
        ({"may_create": False}, "may not make tables"),
        ({"denied": ["chat_turns: UPDATE"]}, "lacks rights on our tables (chat_turns: UPDATE)"),
    ],
)
def test_each_is_one_sentence(differs: dict[str, object], said: str) -> None:
    (sentence,) = misfits_of(FITS | differs, migrates=True)
    assert said in sentence


def test_what_fits_is_taken() -> None:
    assert misfits_of(FITS, migrates=True) == []
    assert misfits_of(FITS | {"may_create": False}, migrates=False) == []
