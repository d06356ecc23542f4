"""A short index of the turns whose message a guardrail refused, which every turn's history queries.

Safe while yesterday's code is serving: the migration only adds an index, which is built while turns are written.

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa

from chatkit_postgres.db.online_changes import create_index, drop_index, outside_of_a_transaction

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with outside_of_a_transaction():
        create_index(
            "chat_turns_tripped",
            "chat_turns",
            ["user_id", "session_id"],
            postgresql_where=sa.text("error_code = 'input_guardrail_tripped'"),
        )


def downgrade() -> None:
    with outside_of_a_transaction():
        drop_index("chat_turns_tripped")
