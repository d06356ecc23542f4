"""Adds the search index: the words of items and of titles.

Safe while yesterday's code is serving: it leaves the columns of new rows null. A row that has an entry, and that it
changes, is found by the old words (docs/search.md says what to do). No table is rewritten, and the indexes are built
while it writes. The server then fills the index in batches, in the background (store/search_index.py), because only the
application can cut a text into words; a user who searches before that waits for their own rows.

Revision ID: 0007
Revises: 0006
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("chat_messages", "chat_sessions")


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS search_words tsvector")
    with op.get_context().autocommit_block():
        for table in TABLES:
            _create_index(
                f"{table}_search",
                table,
                ["search_words"],
                postgresql_using="gin",
                postgresql_with={"gin_pending_list_limit": 128},
            )
            _create_index(f"{table}_unindexed", table, ["user_id"], postgresql_where=sa.text("search_words IS NULL"))
    # The one that the migrations began with ended with its transaction.
    op.execute("SET LOCAL lock_timeout = '5s'")


def _create_index(name: str, table: str, columns: Sequence[str], **options: object) -> None:
    # One that an interrupted migration has begun is invalid.
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.create_index(name, table, list(columns), postgresql_concurrently=True, **options)  # type: ignore[arg-type]


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "search_words")
