"""Runs the statements that are about rows of several owners."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from chatkit_postgres.db import Database, Row, Statement
from chatkit_postgres.store import rows

Documents = Sequence[Mapping[str, object]]


async def run_for_owners(
    database: Database, of_all: Statement, of_owner: Statement, lists: Mapping[str, Documents], **parameters: Any
) -> Sequence[Row]:
    """Run one statement for all owners or, in a cluster, one for each, at once. ``lists`` are parameters that are lists
    of rows, each with its ``user_id``. If a node of a cluster is down, the statements of the owners on other nodes are
    committed before DatabaseUnavailable is raised."""
    if not await database.is_cluster():
        return await database.run_for_several_owners(of_all, **_as_json(lists), **parameters)
    owners = dict.fromkeys(str(row["user_id"]) for row in chain.from_iterable(lists.values()))
    done = await asyncio.gather(
        *(database.run(owner, of_owner, **_as_json(_of(owner, lists)), **parameters) for owner in owners),
        return_exceptions=True,
    )
    found: list[Row] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        found += result
    return found


def _of(owner: str, lists: Mapping[str, Documents]) -> Mapping[str, Documents]:
    return {name: [row for row in listed if row["user_id"] == owner] for name, listed in lists.items()}


def _as_json(lists: Mapping[str, Documents]) -> dict[str, str]:
    # JSON, because asyncpg asks the database about arrays of other types, on each connection.
    return {name: rows.storable_json(rows.dump_json(listed)) for name, listed in lists.items()}
