"""Adds the audit log: who looked at whose conversations.

Safe while yesterday's code is serving, which does not know the table.

Revision ID: 0009
Revises: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "chat_audit",
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("actor_hash", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("subject_hash", sa.Text),
        sa.Column("thread_id", sa.Text),
        sa.Column("thread_hash", sa.Text),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="chat_audit_pkey"),
        sa.CheckConstraint("via IN ('command', 'http')", name="chat_audit_via_check"),
    )
    op.create_index("chat_audit_by_subject", "chat_audit", ["subject_hash", "sequence"])
    op.create_index("chat_audit_by_actor", "chat_audit", ["actor_hash", "sequence"])


def downgrade() -> None:
    op.drop_table("chat_audit")
