"""The users who are refused although their token is valid; each process polls the list."""

import asyncio
import time
from collections.abc import Callable

from chatkit_postgres.db import Database
from chatkit_postgres.db.users import LIST_DISABLED_USERS
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure

SECONDS_BETWEEN_LOOKS = 3
KNOWN_FOR_SECONDS = 9

logger = get_logger(__name__)


class DisabledUsers:
    """Never older than nine seconds: without an answer of the database for so long nobody is let in, as nobody
    could be served."""

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
        self._looking: asyncio.Task[None] | None = None

    async def includes(self, user_id: str) -> bool:
        """Raises DatabaseUnavailable if nobody can tell."""
        if self._known_at is None or self._clock() - self._known_at > KNOWN_FOR_SECONDS:
            await self.look()
        return user_id in self._names

    async def look(self) -> None:
        """Ask the database; callers at the same time share one question. Raises DatabaseUnavailable."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailable:
                pass
            except Exception as error:  # noqa: BLE001 - asked again in a moment
                log_failure(logger, "disabled_users_unknown", error)
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _look(self) -> None:
        asked_at = self._clock()
        found = frozenset(row["user_id"] for row in await self._database.run_for_all_owners(LIST_DISABLED_USERS))
        new = found - self._names
        self._names, self._known_at = found, asked_at
        if new:
            self._on_disabled(set(new))

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # Whoever waits for it is told; nobody may be waiting any more.
