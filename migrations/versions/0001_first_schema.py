"""The first schema: users, threads, items, turns, attachments, feedback.

Safe while other code is serving: every table is new.

Revision ID: 0001
Revises: nothing
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "chat_attachments",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("attachment_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attachment", postgresql.JSONB(), nullable=False),
        sa.Column("storage_key", sa.Text()),
        sa.Column("declared_bytes", sa.BigInteger()),
        sa.Column("stored_bytes", sa.BigInteger()),
        sa.Column("content_type", sa.Text()),
        sa.Column("sha256", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("upload_expires_at", sa.DateTime(timezone=True)),
        sa.Column("uploaded_at", sa.DateTime(timezone=True)),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('pending', 'ready', 'deleted')", name="chat_attachments_state_check"),
        sa.PrimaryKeyConstraint("user_id", "attachment_id", name="chat_attachments_pkey"),
    )
    op.create_index("chat_attachments_by_session", "chat_attachments", ["user_id", "session_id"])
    op.create_table(
        "chat_turns",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("error_code", sa.Text()),
        sa.Column("usage", postgresql.JSONB()),
        sa.Column("retry_from", sa.BigInteger()),
        sa.Column("open_position", sa.BigInteger()),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("request_hash", sa.Text()),
        sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="chat_turns_ended_check"),
        sa.CheckConstraint(
            "state IN ('running', 'completed', 'failed', 'stopped', 'superseded', 'interrupted')",
            name="chat_turns_state_check",
        ),
        sa.PrimaryKeyConstraint("user_id", "session_id", "turn_id", name="chat_turns_pkey"),
    )
    op.create_index("chat_turns_by_start", "chat_turns", ["user_id", "started_at"])
    op.create_index(
        "chat_turns_idempotency_key",
        "chat_turns",
        ["user_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "chat_turns_running",
        "chat_turns",
        ["user_id", "heartbeat_at"],
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "chat_users",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="chat_users_pkey"),
    )
    op.create_index(
        "chat_users_disabled", "chat_users", ["user_id"], postgresql_where=sa.text("disabled_at IS NOT NULL")
    )
    op.create_table(
        "chat_sessions",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column(
            "status",
            postgresql.JSONB(),
            server_default=sa.text('\'{"type": "active"}\'::jsonb'),
            nullable=False,
        ),
        sa.Column("allowed_image_domains", postgresql.JSONB()),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_position", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("current_turn_id", sa.Uuid()),
        sa.ForeignKeyConstraint(["user_id"], ["chat_users.user_id"], name="chat_sessions_user_fkey"),
        sa.PrimaryKeyConstraint("user_id", "session_id", name="chat_sessions_pkey"),
    )
    op.create_index("chat_sessions_by_creation", "chat_sessions", ["user_id", "created_at", "session_id"])
    op.create_table(
        "chat_messages",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("sender_type", sa.Text(), nullable=False),
        sa.Column("sender_name", sa.Text()),
        sa.Column("item_type", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("item", postgresql.JSONB(), nullable=False),
        sa.Column("turn_id", sa.Uuid()),
        sa.Column("is_partial", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_draft", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "sender_type IN ('user', 'assistant', 'tool', 'system')", name="chat_messages_sender_type_check"
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["chat_sessions.user_id", "chat_sessions.session_id"],
            name="chat_messages_session_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "session_id", "message_id", name="chat_messages_pkey"),
        sa.UniqueConstraint("user_id", "session_id", "position", name="chat_messages_position_key"),
    )
    op.create_table(
        "chat_feedback",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('positive', 'negative')", name="chat_feedback_kind_check"),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id", "message_id"],
            ["chat_messages.user_id", "chat_messages.session_id", "chat_messages.message_id"],
            name="chat_feedback_message_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "session_id", "message_id", name="chat_feedback_pkey"),
    )


def downgrade() -> None:
    for table in (
        "chat_feedback",
        "chat_messages",
        "chat_sessions",
        "chat_users",
        "chat_turns",
        "chat_attachments",
    ):
        op.drop_table(table)
