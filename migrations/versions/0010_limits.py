"""Adds the tables that count a user's requests, turns and tokens, so that limits hold over all processes.

Safe while yesterday's code is serving, which does not know the tables.

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "chat_rates",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("window_began", sa.Double, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("earlier", sa.BigInteger, nullable=False),
        sa.Column("counted_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="chat_rates_pkey"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "chat_allowances",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("holds", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("turns", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("tokens_held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("tokens_spent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("user_id", name="chat_allowances_pkey"),
    )
    op.create_index("chat_allowances_held", "chat_allowances", ["user_id"], postgresql_where=sa.text("turns > 0"))


def downgrade() -> None:
    op.drop_table("chat_allowances")
    op.drop_table("chat_rates")
