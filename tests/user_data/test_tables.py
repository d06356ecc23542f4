"""Every table and column is classified: somebody has said what becomes of it in an export."""

import pytest

from chatkit_postgres.db.tables import metadata
from chatkit_postgres.store.sql.exported_tables import NOT_EXPORTED, TABLES


def test_every_table_is_exported_or_left_out_for_a_reason() -> None:
    exported = {table.table for table in TABLES}
    assert exported | set(NOT_EXPORTED) == set(metadata.tables), (
        "say in store/sql/exported_tables.py what becomes of a table"
    )
    assert not exported & set(NOT_EXPORTED)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.table)
def test_every_column_is_exported_or_left_out_for_a_reason(table: object) -> None:
    exported = next(known for known in TABLES if known is table)
    columns = {column.name: column for column in metadata.tables[exported.table].columns}
    assert set(exported.columns) | set(exported.left_out) == set(columns), (
        "say in store/sql/exported_tables.py what becomes of a column"
    )
    assert not set(exported.columns) & set(exported.left_out)
    kinds = {"text": "TEXT", "uuid": "UUID", "bigint": "BIGINT", "integer": "INTEGER", "boolean": "BOOLEAN"}
    kinds |= {"jsonb": "JSONB", "timestamptz": "DATETIME"}
    for name, kind in exported.columns.items():
        assert str(columns[name].type) in {kinds[kind], f"{kinds[kind]}(32)", "CHAR(32)"}, name
