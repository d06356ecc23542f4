"""Runs migrations, one at a time on a database, and never waits long for a lock that the service holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import context
from sqlalchemy import Connection, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatkit_postgres.db.address import normalised_url
from chatkit_postgres.db.connecting import driver_arguments
from chatkit_postgres.db.distribution import MIGRATION_LOCK
from chatkit_postgres.db.online_changes import LOCK_TIMEOUT
from chatkit_postgres.db.tables import VERSION_TABLE, metadata
from chatkit_postgres.settings import load_settings

WAIT_FOR_OTHER_MIGRATION = 120
POLL_SECONDS = 0.5


def database_url() -> str:
    given = context.config.attributes.get("url")
    if given is not None:
        return str(given)
    configured = load_settings().database_url
    if configured is None:
        raise SystemExit(
            "DATABASE_URL is not set. For the embedded database use `chatkit-postgres migrate`; "
            "`chatkit-postgres serve` does it by itself."
        )
    return configured.get_secret_value()


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        # Autogenerate looks at our tables only: the schema may live inside a team's own database.
        include_name=lambda name, kind, _: kind != "table" or name in metadata.tables,
        compare_server_default=True,
        # One that fails takes back nothing of those before it.
        transaction_per_migration=True,
    )
    event.listen(connection, "begin", _limit_waiting)
    with context.begin_transaction():
        context.run_migrations()


def _limit_waiting(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")


async def run_online() -> None:
    url = normalised_url(database_url())
    # Migrations can take any time, so there is no command timeout; but a pooler needs its own arguments here, too.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=driver_arguments(url, command_timeout=None),
    )
    async with _no_other_migration(engine), engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


@asynccontextmanager
async def _no_other_migration(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold the lock on a connection of its own, because a migration that builds an index CONCURRENTLY commits in
    between. Whoever waits for the lock asks again and again: a waiting statement has a snapshot, for whose end the
    building of an index would wait."""
    async with engine.connect() as connection:
        for _ in range(int(WAIT_FOR_OTHER_MIGRATION / POLL_SECONDS)):
            if await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}):
                # It also ends the statement before it, and with that its snapshot.
                await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                yield
                return
            await connection.rollback()
            await asyncio.sleep(POLL_SECONDS)
    raise SystemExit(f"Another migration is running for more than {WAIT_FOR_OTHER_MIGRATION} seconds; try again later.")


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
