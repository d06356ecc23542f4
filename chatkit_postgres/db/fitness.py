"""Checks whether a database meets the requirements: at `migrate`, at `check` and at the start."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from chatkit_postgres.db.database import Database
from chatkit_postgres.db.migrations import current_revision, head_revision
from chatkit_postgres.db.statement import Statement
from chatkit_postgres.db.tables import VERSION_TABLE, metadata

OLDEST_VERSION = 15
"""The tests run on it."""
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NEEDED = ", ".join(
    [f"('{name}', '{right}')" for name in sorted(metadata.tables) for right in _RIGHTS]
    + [f"('{VERSION_TABLE}', 'SELECT')"]
)
_OURS = ", ".join(f"to_regclass('{name}')" for name in sorted(metadata.tables))

READ_SERVER = Statement(
    "read_server",
    f"""
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int / 10000 AS major,
       current_setting('server_encoding') AS encoding,
       current_setting('synchronous_commit') <> 'off' AS is_durable,
       current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('search_path') AS search_path,
       current_database()::text AS name, quote_ident(current_user) AS role, quote_ident(current_schema()) AS schema,
       COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       (SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass('chat_turns')) AS tables_in,
       (SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE oid IN ({_OURS})) AS owns_tables,
       ARRAY(SELECT name || ': ' || action FROM (VALUES {_NEEDED}) AS needed(name, action)
              WHERE NOT has_table_privilege(to_regclass(name), action)) AS denied
""",  # noqa: S608 - constants of ours
)

Server = Mapping[str, Any]


async def read_server(database: Database) -> Server:
    """In one statement, without retries, so that a start is not delayed by an unreachable database."""
    (server,) = await database.run_once(READ_SERVER)
    return dict(server.items())


def misfits_at(url: URL, *, migrates: bool) -> list[str]:
    """The misfits of a database that is to be served, or to be migrated if a migration is needed. Not to be called from
    inside an event loop."""

    async def misfits() -> list[str]:
        database = Database(url, pooled=False)
        server = await read_server(database)
        found = misfits_of(server)
        if found or not migrates or await current_revision(database) == head_revision():
            return found
        return obstacles_to_migration(server)

    return asyncio.run(misfits())


def obstacles_to_migration_at(url: URL) -> list[str]:
    """Not to be called from inside an event loop."""
    return obstacles_to_migration(asyncio.run(read_server(Database(url, pooled=False))))


def misfits_of(server: Server) -> list[str]:
    """A sentence for each requirement that is not met, with its cure."""
    sentences = []
    if server["encoding"] != "UTF8":
        sentences.append(
            f"The database {server['name']} is encoded in {server['encoding']}, which cannot hold every character: "
            "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
        )
    if server["major"] < OLDEST_VERSION:
        sentences.append(f"PostgreSQL {server['version']} is too old: {OLDEST_VERSION} or newer is needed.")
    if server["schema"] is None:
        sentences.append(
            f"The role {server['role']} may use no schema of its search_path ({server['search_path']}): make one, "
            "GRANT USAGE on it, or name another in the URL (options=-c%20search_path=...)."
        )
    if server["denied"]:
        sentences.append(
            f"The role {server['role']} lacks rights on our tables ({', '.join(server['denied'][:4])}): "
            f"GRANT {', '.join(_RIGHTS)} ON ALL TABLES IN SCHEMA {server['tables_in']} TO {server['role']}."
        )
    return sentences


def obstacles_to_migration(server: Server) -> list[str]:
    """The same for the requirements of a migration."""
    if server["is_read_only"]:
        return [f"PostgreSQL {server['version']} is read-only: a standby, or a primary that was replaced."]
    if server["owns_tables"] is False:
        return [f"The role {server['role']} does not own our tables: let their owner migrate."]
    if not server["may_create"]:
        who, where = server["role"], server["schema"]
        return [f"The role {who} may not make tables in the schema {where}: GRANT CREATE ON SCHEMA {where} TO {who}."]
    return []
