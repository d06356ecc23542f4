"""Adds the log of the text of unfinished answers, the request to stop a turn, and statistics for long threads.

Without the statistics, PostgreSQL does not know that a thread has one owner, and may look for an item by its id among
all items of the thread.

Safe while yesterday's code is serving, which ignores both. Its partial rows are what this code writes first, too: whole
messages, to which an empty log adds nothing. A turn of this code that yesterday's code closes keeps its log; this code
adds it to the partial message within seconds.

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "chat_partial_log",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("turn_id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("message_id", sa.Uuid, nullable=False),
        sa.Column("content_index", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("annotation", JSONB),
        sa.PrimaryKeyConstraint("user_id", "session_id", "turn_id", "sequence", name="chat_partial_log_pkey"),
    )
    op.add_column("chat_turns", sa.Column("stop_requested_at", sa.DateTime(timezone=True)))
    op.execute("CREATE STATISTICS chat_messages_owner (dependencies) ON user_id, session_id FROM chat_messages")


def downgrade() -> None:
    op.execute("DROP STATISTICS chat_messages_owner")
    op.drop_column("chat_turns", "stop_requested_at")
    op.drop_table("chat_partial_log")
