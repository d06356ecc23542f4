"""Steps of migrations that change tables while the service writes them.

A transaction takes the strong lock of one table only. With two, it waits for the second while turns that have the
second wait for the first.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op

LOCK_TIMEOUT = "5s"
"""A statement that waits for its lock makes every later query on that table wait behind it."""


@contextmanager
def outside_of_a_transaction() -> Iterator[None]:
    """What the migration has done is committed before, so a migration that is interrupted in the block begins again at
    its beginning, with what is there already."""
    with op.get_context().autocommit_block():
        yield


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Only outside of a transaction. Options are those of ``op.create_index``."""
    # One that an interrupted migration has begun is invalid.
    drop_index(name)
    op.create_index(name, table, list(columns), postgresql_concurrently=True, **options)


def drop_index(name: str) -> None:
    """Only outside of a transaction."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
