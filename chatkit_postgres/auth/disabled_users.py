"""Polls the list of disabled users, who are refused even with a valid token."""

import asyncio
import time
from collections.abc import Callable

from chatkit_postgres.db import Database
from chatkit_postgres.db.users import IS_DISABLED, LIST_DISABLED_USERS
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure

SECONDS_BETWEEN_POLLS = 3
KNOWN_FOR_SECONDS = 9
CLUSTER_SECONDS = 2

logger = get_logger(__name__)


class DisabledUsers:
    """A list that is at most nine seconds old. If it cannot be had for so long, each user is looked up: a node of a
    cluster that is down keeps the list from all, but only its own users from their rows. Whoever cannot be looked up is
    refused, because they could not be served."""

    def __init__(
        self,
        database: Database,
        *,
        on_disabled: Callable[[set[str]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._on_disabled = on_disabled
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._known_at: float | None = None
        self._failed_at: float | None = None
        """When the list of a cluster could not be had."""
        self._refreshing: asyncio.Task[None] | None = None

    async def includes(self, user_id: str) -> bool:
        """Raises DatabaseUnavailable if the list is too old and cannot be refreshed, nor the user be looked up."""
        if self._known_at is None or self._clock() - self._known_at > KNOWN_FOR_SECONDS:
            if not self._database.is_known_cluster:
                await self.refresh()
            elif not await self._is_refreshed():
                return bool(await self._database.run(user_id, IS_DISABLED))
        return user_id in self._names

    async def refresh(self) -> None:
        """Query the database; concurrent callers share one query. Raises DatabaseUnavailable."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._fetch())
            self._refreshing.add_done_callback(self._forget_refresh)
        await asyncio.shield(self._refreshing)

    async def _is_refreshed(self) -> bool:
        """Whether the list of a cluster can be had now. Nobody waits long for a node that does not respond."""
        if self._failed_at is not None and self._clock() - self._failed_at < KNOWN_FOR_SECONDS:
            return False
        try:
            async with asyncio.timeout(CLUSTER_SECONDS):
                await self.refresh()
        except (DatabaseUnavailable, TimeoutError):
            self._failed_at = self._clock()
            return False
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.refresh()
            except DatabaseUnavailable:
                pass
            except Exception as error:  # noqa: BLE001 - the next poll tries again
                log_failure(logger, "disabled_users_unknown", error)
            await asyncio.sleep(SECONDS_BETWEEN_POLLS)

    async def _fetch(self) -> None:
        asked_at = self._clock()
        found = frozenset(row["user_id"] for row in await self._database.run_for_all_owners(LIST_DISABLED_USERS))
        # Known from now on, also while the database does not respond.
        await self._database.is_cluster()
        new = found - self._names
        self._names, self._known_at = found, asked_at
        if new:
            self._on_disabled(set(new))

    def _forget_refresh(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # Retrieved, because asyncio would log it if no caller waits any more.
