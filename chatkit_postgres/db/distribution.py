"""Distributes the tables over the nodes of a Citus cluster by ``user_id``, so that the rows of a user are together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import URL, Table

from chatkit_postgres.db.address import normalised_url
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.db.tables import metadata

OLDEST_CITUS = 13
"""The tests were run on 13.2."""
MIGRATION_LOCK = 0x63686174
"""Our key of an advisory lock, so that two deployments do not change the schema at once: migrations/env.py, too."""
WAIT_FOR_TABLE_LOCK = "10s"
HEALTH = "SELECT * FROM citus_check_cluster_node_health()"
FIRST = "chat_users"

# A table comes after those that it refers to. The others are co-located with the first.
DISTRIBUTED: Sequence[Table] = sorted(
    (table for table in metadata.sorted_tables if "user_id" in table.columns), key=lambda table: table.name != FIRST
)
REFERENCE: Sequence[Table] = [table for table in metadata.sorted_tables if "user_id" not in table.columns]
"""Small tables of all users together, which each node has as a whole."""


@dataclass(frozen=True)
class Cluster:
    """A database that has the Citus extension."""

    version: str
    nodes: Sequence[str]
    """Those that may have rows, as host:port."""
    unreachable: Sequence[str]
    spread: frozenset[str] = field(default_factory=frozenset)
    """The names of our tables that are distributed, or reference tables."""

    @property
    def is_distributed(self) -> bool:
        return FIRST in self.spread

    @property
    def missing(self) -> list[str]:
        """Tables that are still on the coordinator alone."""
        return [table.name for table in [*DISTRIBUTED, *REFERENCE] if table.name not in self.spread]


@dataclass(frozen=True)
class Step:
    """A table that was distributed."""

    table: str
    kind: str
    rows: int


class CannotDistribute(Exception):
    """Its message says why, and what to do."""


async def _read_cluster(connection: Any) -> Cluster | None:
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    if version is None:
        return None
    nodes = await connection.fetch(
        "SELECT nodename || ':' || nodeport AS name, isactive AS is_active FROM pg_dist_node"
        " WHERE noderole = 'primary' AND shouldhaveshards ORDER BY 1"
    )
    ours = ", ".join(f"to_regclass('{name}')" for name in sorted(metadata.tables))
    # Not the view citus_tables, which asks all nodes for sizes, and forgets tables whose nodes do not respond.
    spread = await connection.fetch(
        "SELECT c.relname"  # noqa: S608 - names of ours
        " FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid"
        f" WHERE (p.partmethod = 'h' OR p.repmodel = 't') AND c.oid IN ({ours})"
    )
    return Cluster(
        version=str(version),
        nodes=[str(node["name"]) for node in nodes],
        unreachable=[str(node["name"]) for node in nodes if not node["is_active"]],
        spread=frozenset(str(row["relname"]) for row in spread),
    )


async def find_cluster(url: URL) -> Cluster | None:
    """None without the extension."""
    connection = await connector(normalised_url(url))()
    try:
        return await _read_cluster(connection)
    finally:
        await connection.close()


def cluster_at(url: URL) -> Cluster | None:
    """As ``find_cluster``. Not to be called from inside an event loop."""
    return asyncio.run(find_cluster(url))


def distribute(url: URL) -> list[Step]:
    """Distribute the tables that are not distributed yet, all or none, with their rows. Nobody can use them meanwhile.
    Returns what was done. Raises CannotDistribute. Not to be called from inside an event loop."""

    async def run() -> list[Step]:
        # Without a time limit for a statement: one copies a table.
        connection = await connector(normalised_url(url), command_timeout=None)()
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 0")
                return await _distribute(connection)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            raise CannotDistribute(
                f"A table was in use for more than {WAIT_FOR_TABLE_LOCK}; nothing was changed. Stop all servers,"
                " exports and dumps, and run chatkit-postgres distribute again."
            ) from error
        finally:
            await connection.close()

    return asyncio.run(run())


async def _distribute(connection: Any) -> list[Step]:
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK):
        raise CannotDistribute(
            "A migration is running, or another `distribute`; nothing was changed. Wait for its end, and run"
            " chatkit-postgres distribute again."
        )
    cluster = await _read_cluster(connection)
    if cluster is None:
        raise CannotDistribute(
            "The database has no extension citus: DATABASE_URL must name the coordinator of a Citus cluster, and a"
            " database in which CREATE EXTENSION citus was run, there and on its workers."
        )
    if int(cluster.version.split(".", maxsplit=1)[0]) < OLDEST_CITUS:
        raise CannotDistribute(f"Citus {cluster.version} is too old: {OLDEST_CITUS}.0 or newer is needed.")
    if not cluster.missing:
        return []
    await _check_nodes(connection, cluster)
    await connection.execute(f"SET LOCAL lock_timeout = '{WAIT_FOR_TABLE_LOCK}'")
    # All at once, and before the first copy: a lock that cannot be had later would throw the copies away.
    await connection.execute(f"LOCK TABLE {', '.join(cluster.missing)} IN ACCESS EXCLUSIVE MODE")
    # Tables that refer to each other cannot be changed over several connections in one transaction.
    await connection.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'")
    steps = []
    for table in DISTRIBUTED:
        if table.name not in cluster.spread:
            rows = await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - a name of ours
            await connection.fetchval(
                "SELECT create_distributed_table($1::text::regclass, 'user_id', colocate_with => $2)",
                table.name,
                "none" if table.name == FIRST else FIRST,
            )
            steps.append(Step(table.name, "distributed by user_id", rows))
    for table in REFERENCE:
        if table.name not in cluster.spread:
            rows = await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - a name of ours
            await connection.fetchval("SELECT create_reference_table($1::text::regclass)", table.name)
            steps.append(Step(table.name, "a copy on each node", rows))
    for step in steps:
        # What was copied is hidden, but still in the files of the coordinator, also of users who are erased later.
        await connection.fetchval("SELECT truncate_local_data_after_distributing_table($1::text::regclass)", step.table)
    return steps


async def _check_nodes(connection: Any, cluster: Cluster) -> None:
    if not cluster.nodes:
        raise CannotDistribute(
            "The cluster has no node for rows: add one with SELECT citus_add_node('worker-1', 5432), or let the"
            " coordinator have rows with SELECT citus_set_node_property('coordinator', 5432, 'shouldhaveshards', true)."
        )
    if cluster.unreachable:
        raise CannotDistribute(
            f"Nodes of the cluster are not active: {', '.join(cluster.unreachable)}. Start them, and run"
            " SELECT citus_activate_node('HOST', PORT) on the coordinator for each."
        )
    broken = [
        f"{row['from_nodename']}:{row['from_nodeport']} to {row['to_nodename']}:{row['to_nodeport']}"
        # Null: the coordinator cannot ask the first of them.
        for row in await connection.fetch(HEALTH)
        if not row["result"]
    ]
    if broken:
        raise CannotDistribute(
            f"Nodes of the cluster cannot connect to each other: {', '.join(broken)}. Check pg_hba.conf, the password"
            f" in .pgpass, and TLS, on each of them for this role; {HEALTH} shows all."
        )
