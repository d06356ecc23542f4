"""All statements, and the schema, by the rules of a Citus cluster; without one."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import Table, UniqueConstraint

import chatkit_postgres
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db.distribution import DISTRIBUTED, REFERENCE
from chatkit_postgres.db.migrations import SCRIPTS
from chatkit_postgres.db.tables import metadata
from tests.cluster.rules import EACH_TABLE, RULES, Rule, plain, run_counterexample, takes_owner_from_a_parameter

OF_SEVERAL_OWNERS = {"poll_turns", "checkpoint_turns", "save_partial_items", "index_rows"}
"""Run on a single PostgreSQL alone: a cluster has a form of each for one owner."""

OF_ALL_OWNERS = {
    "find_audit_head": "a reference table",
    "find_named_in_audit": "a reference table",
    "find_owners_of_thread": "an operator has only the id",
    "forget_audited_names": "a reference table",
    "forget_idempotency_keys": "an UPDATE of one table, by each node",
    "list_abandoned_runs": "a bounded list",
    "list_all_unindexed": "a bounded list",
    "list_audit_entries": "a reference table",
    "list_audit_entries_of_subject": "a reference table",
    "list_dead_holds": "a bounded list",
    "list_deleted_attachments": "a bounded list",
    "list_disabled_users": "a list by an index",
    "list_erased": "a reference table",
    "list_feedback": "a page",
    "list_logs_of_ended_turns": "a bounded list",
    "list_names": "a page",
    "list_stale_turns": "a bounded list",
    "list_threads_for_retention": "a page",
    "list_users": "a page",
    "mark_abandoned_attachments": "an UPDATE of one table, by each node",
    "read_revision": "a table of the coordinator",
    "usage_of_users": "a report",
}


def _statements() -> Iterator[Statement]:
    for module in pkgutil.walk_packages(chatkit_postgres.__path__, "chatkit_postgres."):
        if module.name.startswith(("chatkit_postgres.store", "chatkit_postgres.db", "chatkit_postgres.user_data")):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Statement):
                    yield value
                elif isinstance(value, Mapping):
                    yield from (one for one in value.values() if isinstance(one, Statement))


STATEMENTS = {statement.name: statement for statement in _statements()}
OWNER_OF_THE_OUTER_ROW = {"list_unindexed"}
"""A condition with EXISTS takes the owner of the row that it is about, which Citus understands."""


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - OF_SEVERAL_OWNERS))
def test_a_cluster_takes_every_statement(name: str) -> None:
    statement = STATEMENTS[name]
    has_owner = "owner" in statement.parameters
    if not has_owner and "FROM chat_" in statement.sql:
        assert name in OF_ALL_OWNERS, "a statement without an owner asks every node: say here why that is bounded"
    sql = plain(statement.sql)
    broken = {rule.says for rule in RULES if rule.breaks(sql)}
    if not has_owner or name in OWNER_OF_THE_OUTER_ROW:
        broken.discard(EACH_TABLE)
    assert broken == set()


def test_an_insert_after_another_step_takes_the_owner_from_a_row() -> None:
    """Or Citus sends the step's rows to all nodes, and one that is down stops the users of all others."""
    sent = {name for name, one in STATEMENTS.items() if takes_owner_from_a_parameter(plain(one.sql))}
    # Which are rare, and of which no user waits.
    assert {name for name in sent if not name.startswith("import_")} == set()


def test_that_is_noticed() -> None:
    assert takes_owner_from_a_parameter(
        "WITH session AS (UPDATE x), written AS (INSERT INTO chat_messages (user_id, item)"
        " SELECT :owner, CAST(:item AS jsonb) FROM session) SELECT 1"
    )
    assert not takes_owner_from_a_parameter(
        "INSERT INTO chat_users (user_id) SELECT :owner WHERE (SELECT 1 FROM x) = 1"
    )


@pytest.mark.one_postgres
@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_one_postgresql_accepts_its_counterexample(rule: Rule, database: Database) -> None:
    await run_counterexample(database, rule)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_its_counterexample_breaks_a_rule(rule: Rule) -> None:
    assert [other for other in RULES if other.breaks(plain(rule.counterexample))] == [rule]


@pytest.mark.parametrize("name", sorted(OF_SEVERAL_OWNERS))
def test_a_statement_for_several_owners_has_a_form_for_one(name: str) -> None:
    assert f"{name}_of_owner" in STATEMENTS


@pytest.mark.parametrize("table", DISTRIBUTED, ids=str)
def test_every_key_of_a_table_begins_with_the_owner(table: Table) -> None:
    keys = [table.primary_key, *(one for one in table.constraints if isinstance(one, UniqueConstraint))]
    columns = [[column.name for column in key.columns] for key in keys]
    columns += [[column.name for column in index.columns] for index in table.indexes if index.unique]
    assert all(names[0] == "user_id" for names in columns), columns
    for constraint in table.foreign_key_constraints:
        referred = constraint.elements[0].column
        assert constraint.column_keys[0] == referred.name == "user_id"
        assert referred.table in DISTRIBUTED
    assert all(column.identity is None and column.autoincrement in {"auto", False} for column in table.columns)
    assert all(column.server_default is None or "nextval" not in str(column.server_default) for column in table.columns)


def test_every_table_is_distributed_or_a_copy_on_each_node() -> None:
    assert {table.name for table in [*DISTRIBUTED, *REFERENCE]} == set(metadata.tables)
    # A reference table that grows with the traffic would be written on every node for each request.
    assert {table.name for table in REFERENCE} == {"chat_audit", "chat_erased"}


@pytest.mark.parametrize("script", sorted((SCRIPTS / "versions").glob("*.py")), ids=lambda path: path.stem)
def test_migrations_make_nothing_that_a_cluster_has_not(script: Path) -> None:
    text = script.read_text()
    assert (
        re.search(r"\b(?:CREATE (?:OR REPLACE )?TRIGGER|CREATE RULE|Identity\(|autoincrement=True|SERIAL)", text)
        is None
    )


def test_errors_are_told_apart_by_sqlstate() -> None:
    """The name of a constraint has the number of its shard."""
    for path in sorted((SCRIPTS.parent / "chatkit_postgres").rglob("*.py")):
        assert "constraint_name" not in path.read_text(), path
