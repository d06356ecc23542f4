"""Runs the statements that are about rows of several owners."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from chatkit_postgres.db import BACKGROUND, Database, Row, Statement, wait_policy
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store import rows

ROUND_SECONDS = 3.0
"""What is not done by then is left to the next round: a node that does not respond must not delay the heartbeats of
turns on others."""
LEFT_OUT_SECONDS = 10.0
"""For how long an owner is left out whose node has not responded."""
MAX_REMEMBERED = 10_000

Documents = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Found:
    rows: Sequence[Row]
    missed: frozenset[str] = field(default_factory=frozenset)
    """Owners whose statement was not run: their node of a cluster is down."""


class SeveralOwners:
    """On one PostgreSQL, one statement for all owners; in a cluster one for each, several at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failed_at: dict[str, float] = {}
        self._served_at: dict[str, float] = {}
        """Who was served longest ago comes first."""

    async def run(
        self, of_all: Statement, of_owner: Statement, lists: Mapping[str, Documents], **parameters: Any
    ) -> Found:
        """``lists`` are parameters that are lists of rows, each with its ``user_id``. Raises DatabaseUnavailable if it
        is so for all owners."""
        if not await self._database.is_cluster():
            as_json = {name: _as_json(listed) for name, listed in lists.items()}
            try:
                return Found(await self._database.run_for_several_owners(of_all, **as_json, **parameters))
            except asyncpg.FeatureNotSupportedError:
                # It has become a cluster since it was asked.
                self._database.forget_kind()
                if not await self._database.is_cluster():
                    raise
        return await self._run_apart(of_owner, _by_owner(lists), parameters)

    async def _run_apart(
        self, statement: Statement, by_owner: Mapping[str, Mapping[str, Documents]], parameters: Mapping[str, Any]
    ) -> Found:
        # Requests and the ends of turns need connections, too.
        slots = asyncio.Semaphore(max(1, self._database.pool_size // 2))
        begun_at: dict[str, float] = {}

        async def run(owner: str) -> Sequence[Row]:
            wait_policy.set(BACKGROUND)
            async with slots:
                begun_at[owner] = time.monotonic()
                as_json = {name: _as_json(listed) for name, listed in by_owner[owner].items()}
                return await self._database.run(owner, statement, **as_json, **parameters)

        now = time.monotonic()
        self._failed_at = {owner: at for owner, at in self._failed_at.items() if now - at < LEFT_OUT_SECONDS}
        if len(self._served_at) > MAX_REMEMBERED:
            self._served_at = {owner: at for owner, at in self._served_at.items() if owner in by_owner}
        waiting = (owner for owner in by_owner if owner not in self._failed_at)
        owners = sorted(waiting, key=lambda owner: self._served_at.get(owner, 0))
        tasks = {owner: asyncio.create_task(run(owner)) for owner in owners}
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=ROUND_SECONDS)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        found: list[Row] = []
        missed = set(by_owner) - set(tasks)
        for owner, task in tasks.items():
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                found += task.result()
                self._served_at[owner] = now
            elif isinstance(error, DatabaseUnavailable | asyncio.CancelledError):
                missed.add(owner)
                # Not one that has waited for the others, and only then begun.
                is_late = time.monotonic() - begun_at.get(owner, math.inf) > ROUND_SECONDS / 2
                if is_late or isinstance(error, DatabaseUnavailable):
                    self._failed_at[owner] = time.monotonic()
            else:
                raise error
        if by_owner and missed == set(by_owner):
            raise DatabaseUnavailable
        return Found(found, frozenset(missed))


def _by_owner(lists: Mapping[str, Documents]) -> dict[str, dict[str, list[Mapping[str, object]]]]:
    by_owner: dict[str, dict[str, list[Mapping[str, object]]]] = {}
    for name, listed in lists.items():
        for row in listed:
            of_owner = by_owner.setdefault(str(row["user_id"]), {each: [] for each in lists})
            of_owner[name].append(row)
    return by_owner


def _as_json(listed: Documents) -> str:
    # JSON, because asyncpg asks the database about arrays of other types, on each connection.
    return rows.storable_json(rows.dump_json(listed))
