"""Rules of the house that a linter does not know."""

import re

import pytest

from chatkit_postgres.db import Statement
from chatkit_postgres.store.sql import (
    attachments,
    feedback,
    history,
    items,
    live,
    maintenance,
    partials,
    threads,
    turns,
)
from tests import conftest
from tests.support.processes import ROOT

STATEMENTS = [
    value
    for module in (threads, items, feedback, history, turns, attachments, live, partials, maintenance)
    for value in vars(module).values()
    if isinstance(value, Statement)
]
OF_SEVERAL_OWNERS = {"poll_turns", "checkpoint_turns", "save_partial_items"}
"""Each of their rows names its owner: tests/store/test_partials.py and test_live.py."""
OF_ALL_OWNERS = {value.name for value in vars(maintenance).values() if isinstance(value, Statement)}


@pytest.mark.parametrize(
    "statement",
    [statement for statement in STATEMENTS if statement.name not in OF_SEVERAL_OWNERS | OF_ALL_OWNERS],
    ids=lambda statement: str(statement.name),
)
def test_every_statement_names_its_owner(statement: Statement) -> None:
    assert ":owner" in statement.sql
    tables = re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(chat_\w+)", statement.sql)
    assert tables
    # Directly, or by the owner of a row that was found by its owner.
    assert len(re.findall(r":owner|user_id = \w+\.user_id", statement.sql)) >= len(set(tables))


def test_statement_names_are_unique() -> None:
    names = [statement.name for statement in STATEMENTS]
    assert len(set(names)) == len(names)


def test_nothing_speaks_of_the_package_by_its_old_name() -> None:
    old = re.compile(r"\bapp\.(api|chat|store|db|assistant)\b|(?<![\w/])app/(api|chat|store|db|assistant)/")
    places = [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "Dockerfile"]
    for folder in ("chatkit_postgres", "migrations", "benchmarks", "docs", "tests", ".ci"):
        places += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".template", ""}]
    found = [
        str(path.relative_to(ROOT))
        for path in places
        if path.is_file() and path.name not in {"CHANGELOG.md", "nextjs.md"} and "__pycache__" not in path.parts
        for line in path.read_text(errors="replace").splitlines()
        if old.search(line) and "route.ts" not in line and "old = re" not in line
    ]
    assert found == []


def test_files_are_short_enough_to_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "chatkit_postgres").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 300
    }
    assert long == {}


@pytest.mark.parametrize("path", conftest.SLOW)
def test_a_folder_or_file_that_is_marked_as_slow_exists(path: str) -> None:
    # A renamed folder would be run by `make test-fast` without anybody noticing.
    assert (ROOT / "tests" / path).exists()


def test_a_fixture_that_is_marked_as_slow_exists() -> None:
    assert [name for name in conftest.SLOW_FIXTURES if not hasattr(conftest, name)] == []


def test_every_mark_of_the_table_is_used_and_registered(pytestconfig: pytest.Config) -> None:
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {mark for mark, _ in conftest.SLOW.values()} | {"slow"} <= registered
