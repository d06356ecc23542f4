"""Adds the tombstones of erased users.

Safe while yesterday's code is serving, which does not know the table.

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "chat_erased",
        sa.Column("user_hash", sa.Text, nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_hash", name="chat_erased_pkey"),
    )


def downgrade() -> None:
    op.drop_table("chat_erased")
