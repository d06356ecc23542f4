"""Adds runs that wait for a person's approval, and the calls of tools with their outputs.

Safe while yesterday's code is serving, which knows neither table, and reads a turn that ended as `waiting` like one
that was completed. The new check of the states reads the turns once, a fraction of a second for some millions, in which
new turns wait.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

STATES = "'running', 'completed', 'failed', 'stopped', 'superseded', 'interrupted'"


def _set_states(states: str) -> None:
    op.execute("LOCK TABLE chat_turns IN ACCESS EXCLUSIVE MODE")
    op.drop_constraint("chat_turns_state_check", "chat_turns")
    op.create_check_constraint("chat_turns_state_check", "chat_turns", f"state IN ({states})")


def upgrade() -> None:
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
    _set_states(f"{STATES}, 'waiting'")


def downgrade() -> None:
    op.execute("LOCK TABLE chat_turns IN ACCESS EXCLUSIVE MODE")
    op.execute("UPDATE chat_turns SET state = 'completed' WHERE state = 'waiting'")
    _set_states(STATES)
    op.drop_table("chat_tool_calls")
    op.drop_table("chat_approvals")
