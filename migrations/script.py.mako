"""${message}

Rules for a migration:
- It can run while yesterday's code is serving; say below why that is safe.
- It takes no lock for long: add columns without a rewrite, build indexes CONCURRENTLY in an autocommit block,
  add constraints NOT VALID and validate them in the next migration. `lock_timeout` is set in env.py.
- Its names start with chat_, because the schema may live inside a team's own database.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | Sequence[str] | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
