"""Whether a database is one that this service can keep its promises on: looked at by `migrate`, `check` and a start."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from app.db.database import Database
from app.db.statement import Statement
from app.db.tables import VERSION_TABLE, metadata

OLDEST_VERSION = 15
"""The tests run on it."""
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TABLES = ", ".join(f"'{name}'" for name in sorted(metadata.tables))

READ_SERVER = Statement(
    "read_server",
    f"""
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int / 10000 AS major,
       current_setting('server_encoding') AS encoding,
       current_setting('synchronous_commit') <> 'off' AS is_durable,
       current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_database()::text AS name, current_user::text AS role, current_schema()::text AS schema,
       COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       ARRAY(SELECT name || ': ' || action
               FROM unnest(ARRAY[{_TABLES}]) name, unnest(ARRAY[{", ".join(f"'{right}'" for right in _RIGHTS)}]) action
              WHERE NOT has_table_privilege(to_regclass(name), action)) AS denied,
       to_regclass('{VERSION_TABLE}') IS NOT NULL AS has_tables
""",  # noqa: S608 - constants of ours
)

Server = Mapping[str, Any]


async def read_server(database: Database) -> Server:
    """In one look, without the retries: a start does not wait for a database that does not answer."""
    async with database.connection() as connection:
        found = await connection.exec_driver_sql(READ_SERVER.driver_sql)
        return dict(found.mappings().one())


def misfits_at(url: URL) -> list[str]:
    """Before a migration. Not to be called from inside an event loop."""

    async def look() -> Server:
        return await read_server(Database(url, pooled=False))

    return misfits_of(asyncio.run(look()), migrates=True)


def misfits_of(server: Server, *, migrates: bool) -> list[str]:
    """A sentence for each thing that does not fit, and what to do about it."""
    sentences = []
    if server["encoding"] != "UTF8":
        sentences.append(
            f"The database {server['name']} is encoded in {server['encoding']}, which cannot hold every character: "
            f"make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
        )
    if server["major"] < OLDEST_VERSION:
        sentences.append(f"PostgreSQL {server['version']} is too old: {OLDEST_VERSION} or newer is needed.")
    if server["schema"] is None:
        sentences.append("No schema of the search_path exists: make one, or name another in the URL's options.")
    elif migrates and not server["may_create"]:
        sentences.append(
            f"The role {server['role']} may not make tables in the schema {server['schema']}: "
            f"GRANT CREATE ON SCHEMA {server['schema']} TO {server['role']}."
        )
    if server["denied"]:
        sentences.append(
            f"The role {server['role']} lacks rights on our tables ({', '.join(server['denied'][:4])}): "
            f"GRANT {', '.join(_RIGHTS)} ON ALL TABLES IN SCHEMA {server['schema']} TO {server['role']}."
        )
    return sentences
