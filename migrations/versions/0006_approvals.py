"""Adds runs that wait for a person's approval, and the calls of tools with their outputs.

Safe while yesterday's code is serving, which knows neither table, and reads a turn that ended as `waiting` like one
that was completed. The new check of the states holds for new turns at once; those that are there are read for it while
new ones are written.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from chatkit_postgres.db.online_changes import outside_of_a_transaction

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

STATES = "'running', 'completed', 'failed', 'stopped', 'superseded', 'interrupted'"


def _set_states(states: str) -> None:
    op.execute(f"""
        ALTER TABLE chat_turns
         DROP CONSTRAINT IF EXISTS chat_turns_state_check,
          ADD CONSTRAINT chat_turns_state_check CHECK (state IN ({states})) NOT VALID
    """)
    with outside_of_a_transaction():
        if "'waiting'" not in states:
            op.execute("UPDATE chat_turns SET state = 'completed' WHERE state = 'waiting'")
        op.execute("ALTER TABLE chat_turns VALIDATE CONSTRAINT chat_turns_state_check")


def upgrade() -> None:
    _set_states(f"{STATES}, 'waiting'")
    op.create_table(
        "chat_approvals",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("turn_id", sa.Uuid, nullable=False),
        sa.Column("run_state", sa.Text, nullable=False),
        sa.Column("calls", JSONB, nullable=False),
        sa.Column("resumed_by", sa.Uuid),
        sa.Column("claims", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("takeovers", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("user_id", "session_id", "turn_id", name="chat_approvals_pkey"),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["chat_sessions.user_id", "chat_sessions.session_id"],
            name="chat_approvals_session_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "chat_approvals_resumed",
        "chat_approvals",
        ["user_id", "session_id"],
        postgresql_where=sa.text("resumed_by IS NOT NULL"),
    )
    op.create_table(
        "chat_tool_calls",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("turn_id", sa.Uuid, nullable=False),
        sa.Column("is_draft", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("is_function", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("user_id", "session_id", "position", "sequence", name="chat_tool_calls_pkey"),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["chat_sessions.user_id", "chat_sessions.session_id"],
            name="chat_tool_calls_session_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "chat_tool_calls_drafts",
        "chat_tool_calls",
        ["user_id", "session_id", "turn_id"],
        postgresql_where=sa.text("is_draft"),
    )


def downgrade() -> None:
    _set_states(STATES)
    op.drop_table("chat_tool_calls")
    op.drop_table("chat_approvals")
