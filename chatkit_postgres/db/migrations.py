"""Reads the revision of a database, knows the one that this code needs, and upgrades."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from chatkit_postgres.db.database import Database
from chatkit_postgres.db.statement import Statement
from chatkit_postgres.db.tables import VERSION_TABLE

PACKAGE = Path(__file__).resolve().parents[1]
# In the package when it is installed from a wheel; beside it in a checkout.
SCRIPTS = next(
    (place for place in (PACKAGE / "migrations", PACKAGE.parent / "migrations") if (place / "env.py").is_file()),
    PACKAGE / "migrations",
)


def _config(url: URL | None = None) -> Config:
    # Without alembic.ini, which is for the command `alembic` in a checkout and not part of the package.
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    if url is not None:
        config.attributes["url"] = url.render_as_string(hide_password=False)
    return config


def head_revision() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"no migrations found in {SCRIPTS}")
    return head


_FIND_TABLE = Statement("find_version_table", f"SELECT to_regclass('{VERSION_TABLE}')::text AS found")
_ASK_IF_READ_ONLY = Statement(
    "ask_if_read_only", "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only"
)
_READ_REVISION = Statement("read_revision", f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant of ours


async def current_revision(database: Database) -> str | None:
    """The revision of the database; None before the first migration."""
    (table,) = await database.run_for_all_owners(_FIND_TABLE)
    if table["found"] is None:
        return None
    rows = await database.run_for_all_owners(_READ_REVISION)
    return str(rows[0]["version_num"]) if rows else None


async def is_read_only(database: Database) -> bool:
    """Whether its server takes no writes: a standby, or a primary that was replaced."""
    (row,) = await database.run_for_all_owners(_ASK_IF_READ_ONLY)
    return bool(row["is_read_only"])


def revision_at(url: URL) -> str | None:
    """Not to be called from inside an event loop."""
    return asyncio.run(current_revision(Database(url, pooled=False)))


def is_newer_at(url: URL) -> str | None:
    """The revision of a database that newer code has migrated, as before a deployment was rolled back. Not to be called
    from inside an event loop."""
    seen = revision_at(url)
    return seen if seen != head_revision() and is_served_by_this_code(seen) else None


def is_served_by_this_code(seen: str | None) -> bool:
    """Whether the database is at the head revision, or at one that only newer code knows: a migration may run while the
    previous version is serving."""
    if seen is None or seen == head_revision():
        return seen is not None
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return seen not in known


def upgrade(url: URL) -> None:
    """Upgrade the database to the head revision. Not to be called from inside an event loop."""
    command.upgrade(_config(url), "head")
