"""Saves what is unfinished of all running turns, in a number of statements that does not grow with the turns.

Twice a second, one statement saves the new text of every answer and learns which turns must end: because they lost
their thread or its fence, or because somebody asked to stop them. Items that have no row yet, and items that are no
text, are saved in another one.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from functools import partial
from typing import Protocol

from chatkit_postgres.chat.turns.accumulators import Changes
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import BACKGROUND, OVERDUE, wait_policy
from chatkit_postgres.errors import ChatError, DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.partials import Checkpoint, PartialItem, PartialRepository

PERIOD_SECONDS = 0.5
STEP_SECONDS = 0.1
"""How often to look for items without a row: their text is lost when another turn takes the fence."""

OVERDUE_SECONDS = 1
HURRY_SECONDS = 5
"""After a checkpoint that took more than ``OVERDUE_SECONDS``, for how long they go before other statements."""

FAILED_SECONDS = 10
"""After a failure, for how long the items of a turn are left out of checkpoints."""

Save = Callable[[Sequence["CheckpointedTurn"]], Awaitable[None]]

logger = get_logger(__name__)


class CheckpointedTurn(Protocol):
    """A running turn."""

    context: RequestContext
    draft: Draft

    @property
    def is_open(self) -> bool:
        """Whether it has a thread, and is not ending."""
        ...

    def end_by_checkpoint(self, reason: ChatError | None) -> None:
        """End it for the reason that a checkpoint has found; None: somebody asked to stop it."""
        ...


class Checkpoints:
    def __init__(
        self, partials: PartialRepository, *, heartbeat_seconds: float, observe_lag: Callable[[float], object]
    ) -> None:
        self._partials = partials
        self._heartbeat_seconds = heartbeat_seconds
        self._observe_lag = observe_lag
        self._turns: set[CheckpointedTurn] = set()
        self._failed_at: dict[CheckpointedTurn, float] = {}
        """When the database has refused the unfinished items of a turn."""
        self._in_flight: Sequence[CheckpointedTurn] = ()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._slow_at = -math.inf
        """When the last checkpoint that took long has ended."""
        now = time.monotonic()
        self._items_at = self._text_at = self._beat_at = self._saved_at = now

    def add(self, turn: CheckpointedTurn) -> None:
        self._turns.add(turn)
        if self._task is None or self._task.done():
            self._saved_at = time.monotonic()
            # A context of its own: the log must not name the request that happened to come first.
            self._task = asyncio.create_task(self._run(), name="checkpoints", context=Context())

    def save_soon(self) -> None:
        """Save what there is at the next step: a reader that has left may be a page that is reloaded, which must not
        show less than before."""
        self._items_at = self._text_at = 0

    async def leave(self, turn: CheckpointedTurn) -> None:
        """Returns once no statement is under way that could save something of this turn."""
        self._turns.discard(turn)
        if turn in self._in_flight:
            await self._idle.wait()
        self.forget(turn)

    def forget(self, turn: CheckpointedTurn) -> None:
        """Like ``leave``, for a turn that was cancelled before its first step: nothing of it can be under way."""
        self._turns.discard(turn)
        self._failed_at.pop(turn, None)
        if not self._turns and not self._in_flight and self._task is not None:
            self._task.cancel()
            # Another turn may begin before it has ended.
            self._task = None

    async def _run(self) -> None:
        while self._turns:
            await asyncio.sleep(STEP_SECONDS)
            now = time.monotonic()
            if now - self._items_at >= PERIOD_SECONDS and any(turn.draft.needs_row for turn in self._open_turns()):
                self._items_at = now
                await self._save(self._save_items, self._open_turns())
            if now - self._text_at >= PERIOD_SECONDS and self._open_turns():
                self._text_at = now
                is_due = now - self._beat_at >= self._heartbeat_seconds
                is_saved = await self._save(partial(self._save_text, with_heartbeat=is_due), self._open_turns())
                if is_due and is_saved:
                    self._beat_at = now

    def _open_turns(self) -> list[CheckpointedTurn]:
        return [turn for turn in self._turns if turn.is_open]

    async def _save(self, save: Save, turns: Sequence[CheckpointedTurn]) -> bool:
        """Save what is new of these turns; of those that cannot be saved together, by halves. Returns False if the
        database is not available."""
        turns = [turn for turn in turns if turn in self._turns]
        if not turns:
            return True
        began = time.monotonic()
        wait_policy.set(OVERDUE if began - self._slow_at < HURRY_SECONDS else BACKGROUND)
        self._in_flight = turns
        self._idle.clear()
        try:
            await save(turns)
        except DatabaseUnavailable:
            # The next checkpoint saves all that is new since the last one that succeeded.
            return False
        except Exception as error:  # noqa: BLE001 - one answer that cannot be saved must not keep the others from it
            if len(turns) == 1:
                context = turns[0].context
                thread_id = required_session(context).thread_id
                log_failure(logger, "checkpoint_failed", error, user_id=context.user_id, thread_id=thread_id)
                self._failed_at[turns[0]] = time.monotonic()
                return True
        else:
            return True
        finally:
            if time.monotonic() - began > OVERDUE_SECONDS:
                self._slow_at = time.monotonic()
            self._in_flight = ()
            self._idle.set()
        middle = len(turns) // 2
        return await self._save(save, turns[:middle]) and await self._save(save, turns[middle:])

    async def _save_items(self, turns: Sequence[CheckpointedTurn]) -> None:
        async with AsyncExitStack() as held:
            found: list[Changes] = []
            partials: list[PartialItem] = []
            for turn in turns:
                if self._has_failed(turn) or not turn.draft.needs_row or turn.draft.lock.locked():
                    continue
                # Another task may be waiting for a free lock: it removes or saves its item before the lock is ours.
                await held.enter_async_context(turn.draft.lock)
                for changes in turn.draft.changed_items():
                    if changes.item is not None:
                        found.append(changes)
                        partials.append(PartialItem(turn.context, changes.item))
            if partials:
                for changes, is_saved in zip(found, await self._partials.save_items(partials), strict=True):
                    if is_saved:
                        changes.saved()

    async def _save_text(self, turns: Sequence[CheckpointedTurn], *, with_heartbeat: bool) -> None:
        started = time.monotonic()
        new = [[] if self._has_failed(turn) else turn.draft.new_text() for turn in turns]
        checkpoints = [
            Checkpoint(turn.context, [entry for changes in found for entry in changes.entries])
            for turn, found in zip(turns, new, strict=True)
        ]
        appended = await self._partials.checkpoint(checkpoints, with_heartbeat=with_heartbeat)
        lost = appended.lost
        for turn, found in zip(turns, new, strict=True):
            if turn.context.user_id not in appended.missed:
                for changes in found:
                    changes.saved()
        if any(new):
            self._observe_lag(time.monotonic() - self._saved_at)
        self._saved_at = started
        for turn, checkpoint in zip(turns, checkpoints, strict=True):
            if checkpoint.session.turn_id in lost and turn.is_open:
                turn.end_by_checkpoint(lost[checkpoint.session.turn_id])

    def _has_failed(self, turn: CheckpointedTurn) -> bool:
        failed_at = self._failed_at.get(turn)
        return failed_at is not None and time.monotonic() - failed_at < FAILED_SECONDS
