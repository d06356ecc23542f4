"""Extends the short index of refused turns to those that providers refused.

Safe while yesterday's code is serving, whose query can use the new index as well. Building the index reads the turns
once, a second for some millions, in which new turns wait. The table is locked first: otherwise a turn's heartbeat could
hold a lock that the second step needs, and wait for a lock of the first.

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("LOCK TABLE chat_turns IN ACCESS EXCLUSIVE MODE")
    op.create_index(
        "chat_turns_refused",
        "chat_turns",
        ["user_id", "session_id"],
        postgresql_where=sa.text(
            "error_code IN ('input_guardrail_tripped', 'content_refused', 'context_too_long', 'picture_refused')"
        ),
    )
    op.drop_index("chat_turns_tripped", table_name="chat_turns")


def downgrade() -> None:
    op.execute("LOCK TABLE chat_turns IN ACCESS EXCLUSIVE MODE")
    op.create_index(
        "chat_turns_tripped",
        "chat_turns",
        ["user_id", "session_id"],
        postgresql_where=sa.text("error_code = 'input_guardrail_tripped'"),
    )
    op.drop_index("chat_turns_refused", table_name="chat_turns")
