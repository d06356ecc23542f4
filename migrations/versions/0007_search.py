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

from chatkit_postgres.db.online_changes import create_index, outside_of_a_transaction

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("chat_messages", "chat_sessions")


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS search_words tsvector")
        with outside_of_a_transaction():
            create_index(
                f"{table}_search",
                table,
                ["search_words"],
                postgresql_using="gin",
                postgresql_with={"gin_pending_list_limit": 128},
            )
            create_index(f"{table}_unindexed", table, ["user_id"], postgresql_where=sa.text("search_words IS NULL"))


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS search_words")
        # Commit, and give the lock back before the next table.
        with outside_of_a_transaction():
            pass
