"""Extends the short index of refused turns to those that providers refused.

Safe while yesterday's code is serving, whose query can use the new index as well, which is built while turns are
written.

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa

from chatkit_postgres.db.online_changes import create_index, drop_index, outside_of_a_transaction

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with outside_of_a_transaction():
        create_index(
            "chat_turns_refused",
            "chat_turns",
            ["user_id", "session_id"],
            postgresql_where=sa.text(
                "error_code IN ('input_guardrail_tripped', 'content_refused', 'context_too_long', 'picture_refused')"
            ),
        )
        drop_index("chat_turns_tripped")


def downgrade() -> None:
    with outside_of_a_transaction():
        create_index(
            "chat_turns_tripped",
            "chat_turns",
            ["user_id", "session_id"],
            postgresql_where=sa.text("error_code = 'input_guardrail_tripped'"),
        )
        drop_index("chat_turns_refused")
