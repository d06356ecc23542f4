"""A short index of the turns whose message a guardrail refused, which every turn's history queries.

Safe while yesterday's code is serving: the migration only adds an index, and no rows for it exist yet. Building the
index reads the turns once, a second for some millions, in which new turns wait; CONCURRENTLY would wait for another
migration that waits for this one.

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(
        "chat_turns_tripped",
        "chat_turns",
        ["user_id", "session_id"],
        postgresql_where=sa.text("error_code = 'input_guardrail_tripped'"),
    )


def downgrade() -> None:
    op.drop_index("chat_turns_tripped", table_name="chat_turns")
