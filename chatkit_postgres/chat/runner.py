"""Starts turns, holds references to them until they end, and stops all but the newest of a thread."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from chatkit_postgres.chat.buffer import Encode, Reader
from chatkit_postgres.chat.running_turn import Events, RunningTurn, Stop, TurnLimits, no_readers
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Draining, KeyReused, TooManyTurns, Unavailable, UserDisabled
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store import DatabaseStore

SAVE_SECONDS = 10.0

OnDisconnect = Literal["stop", "finish"]

logger = get_logger(__name__)


class TurnRunner:
    def __init__(
        self,
        store: DatabaseStore,
        encode: Encode,
        metrics: Metrics,
        *,
        limits: TurnLimits | None = None,
        on_disconnect: OnDisconnect = "stop",
    ) -> None:
        self._store = store
        self._encode = encode
        self._metrics = metrics
        self.limits = limits or TurnLimits()
        self._on_disconnect = on_disconnect
        self._running: set[RunningTurn] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self.is_draining = False

    @property
    def running_count(self) -> int:
        return len(self._running)

    async def start(self, events: Events, context: RequestContext) -> RunningTurn:
        """Start a turn and wait for its first event. Raises what kept it from coming."""
        if self.is_draining:
            raise Draining
        if context.turn is None:
            raise TypeError("this context has no turn")
        if sum(1 for running in self._of_user(context.user_id)) >= self.limits.turns_per_user:
            raise TooManyTurns
        started = RunningTurn(
            events,
            context,
            context.turn,
            store=self._store,
            encode=self._encode,
            metrics=self._metrics,
            limits=self.limits,
        )
        self._running.add(started)
        started.task.add_done_callback(lambda _: self._running.discard(started))
        await started.primed()
        self._see_to_older_turns(started)
        return started

    def find(self, key: str, request_hash: str, context: RequestContext) -> RunningTurn | None:
        """The turn of this owner that runs under an idempotency key here. Raises KeyReused for another request."""
        for running in self._running:
            if running.is_stopping:
                # Its readers have left; what it leaves behind is read from the database.
                continue
            if running.turn.idempotency_key == key and running.context.user_id == context.user_id:
                if running.turn.request_hash != request_hash:
                    raise KeyReused
                return running
        return None

    def stop_users(self, user_ids: set[str]) -> None:
        """They were disabled: what is being answered for them is ended and kept."""
        for user_id in user_ids:
            for running in self._of_user(user_id):
                running.stop(Stop("stopped", UserDisabled()))

    def _of_user(self, user_id: str) -> Iterator[RunningTurn]:
        return (r for r in self._running if r.context.user_id == user_id and not r.is_stopping)

    def join(self, running: RunningTurn) -> Reader:
        self._metrics.readers.inc()
        return running.buffer.read_from_start()

    def leave(self, running: RunningTurn, reader: Reader) -> None:
        """A reader is gone. The last one to go stops the turn: that is what Stop in ChatKit does."""
        self._metrics.readers.dec()
        running.buffer.leave(reader)
        if running.buffer.readers == 0 and self._on_disconnect == "stop":
            running.stop(no_readers())

    async def drain(self, seconds: float) -> None:
        """Refuse new turns, give the running ones so long, then stop them and wait until they are saved."""
        self.is_draining = True
        tasks = [running.task for running in self._running]
        if tasks:
            logger.info("draining", turns=len(tasks), seconds=seconds)
            await asyncio.wait(tasks, timeout=seconds)
        # A turn that is just being opened is let through first: stopped in the middle of that statement, it could have
        # stored a message whose sender is told to send it again.
        with suppress(TimeoutError):
            opening = (running.primed() for running in self._running)
            await asyncio.wait_for(asyncio.gather(*opening, return_exceptions=True), SAVE_SECONDS)
        for running in list(self._running):
            running.stop(Stop("interrupted", Draining()))
        if unsaved := {*tasks, *self._chores}:
            # Bounded: an assistant that swallows its cancellation must not keep the process alive.
            await asyncio.wait(unsaved, timeout=SAVE_SECONDS)

    def _see_to_older_turns(self, newest: RunningTurn) -> None:
        for running in self._running:
            same_owner = running.context.user_id == newest.context.user_id
            if running is not newest and same_owner and running.turn.thread_id == newest.turn.thread_id:
                # Which of the two is newer, the database knows.
                running.look_now()
        if newest.turn.found_fence_of is not None and newest.turn.thread_id is not None:
            chore = asyncio.create_task(self._close_stale_turns(newest.turn.thread_id, newest.context))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)

    async def _close_stale_turns(self, thread_id: str, context: RequestContext) -> None:
        try:
            await self._store.close_stale_turns(thread_id, context, stale_seconds=self.limits.stale_seconds)
        except Unavailable:
            return
        except Exception as error:  # noqa: BLE001 - the maintenance job looks again
            log_failure(logger, "stale_turns_not_closed", error)
