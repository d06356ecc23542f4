"""A short index of the turns whose message a guardrail refused: the history of every turn looks there.

Safe while yesterday's code is serving: it only adds an index, and none of the rows it is about exist yet. Building it
reads the turns once, a second for some millions, in which new ones wait; CONCURRENTLY would wait for another migration
that waits for this one.

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
