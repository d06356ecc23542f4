"""The message an attachment was sent with, and short indexes for the jobs that remove bytes.

Safe while yesterday's code is serving: that code names the columns it writes, and the new one is nullable. The indexes
are built without a lock because that table was not written to before.

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("chat_attachments", sa.Column("message_id", sa.Uuid()))
    op.create_index(
        "chat_attachments_deleted",
        "chat_attachments",
        ["deleted_at"],
        postgresql_where=sa.text("state = 'deleted'"),
    )
    op.create_index(
        "chat_attachments_unsent",
        "chat_attachments",
        ["created_at"],
        postgresql_where=sa.text("session_id IS NULL AND state <> 'deleted'"),
    )


def downgrade() -> None:
    op.drop_index("chat_attachments_unsent", table_name="chat_attachments")
    op.drop_index("chat_attachments_deleted", table_name="chat_attachments")
    op.drop_column("chat_attachments", "message_id")
