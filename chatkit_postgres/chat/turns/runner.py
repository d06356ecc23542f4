"""Starts turns, holds references to them until they end, refuses too many, and drains them at shutdown."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from uuid import UUID

from chatkit_postgres.chat.turns.admission import Admission, AdmissionRules
from chatkit_postgres.chat.turns.beginnings import Beginnings
from chatkit_postgres.chat.turns.buffer import Encode, Reader
from chatkit_postgres.chat.turns.checkpoints import Checkpoints
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.running_turn import OnDisconnect, RunningTurn, Stop, TurnLimits, no_readers
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError, Draining, KeyReused, ServerFull, TooManyTurns, Unavailable, UserDisabled
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore

SAVE_SECONDS = 10.0

logger = get_logger(__name__)


class TurnRunner:
    def __init__(
        self,
        store: DatabaseStore,
        encode: Encode,
        metrics: Metrics,
        *,
        limits: TurnLimits | None = None,
        admission: AdmissionRules | None = None,
        on_disconnect: OnDisconnect = "stop",
    ) -> None:
        self._store = store
        self._encode = encode
        self._metrics = metrics
        self.limits = limits or TurnLimits()
        self._on_disconnect = on_disconnect
        self._checkpoints = Checkpoints(
            store.partials,
            heartbeat_seconds=self.limits.heartbeat_seconds,
            observe_lag=metrics.checkpoint_lag.observe,
        )
        self._beginnings = Beginnings(self.limits.beginning_turns)
        self._admission = Admission(store, admission or AdmissionRules(), self._ending_of_user)
        self._running: dict[str, set[RunningTurn]] = {}
        """By user id."""
        self.running_count = 0
        self._background: set[asyncio.Task[None]] = set()
        self.is_draining = False

    @property
    def is_full(self) -> bool:
        return self.running_count >= self.limits.max_turns

    async def start(
        self, events: Events, context: RequestContext, draft: Draft, *, wait_seconds: float | None = None
    ) -> RunningTurn:
        """Start a turn and wait for its first event, no longer than ``wait_seconds``. Raises the error that prevented
        it, and before anything is stored Draining, ServerFull, TooManyTurns or BudgetUsedUp."""
        if (refusal := self._refusal(context)) is not None:
            self._metrics.turns_refused.labels(refusal.code).inc()
            raise refusal
        started = RunningTurn(
            events,
            context,
            draft,
            store=self._store,
            checkpoints=self._checkpoints,
            beginnings=self._beginnings,
            admission=self._admission,
            encode=self._encode,
            metrics=self._metrics,
            limits=self.limits,
        )
        self._running.setdefault(context.user_id, set()).add(started)
        self.running_count += 1
        started.task.add_done_callback(lambda _: self._forget(started))
        await started.primed(wait_seconds)
        if started.has_begun:
            self._close_older_turns(started)
        else:
            self._in_background(self._close_once_begun(started))
        return started

    def _refusal(self, context: RequestContext) -> ChatError | None:
        if self.is_draining:
            return Draining()
        if self.is_full:
            return ServerFull()
        if len(self._of_user(context.user_id)) >= self.limits.turns_per_user:
            return TooManyTurns()
        return None

    def stop_turn(self, user_id: str, turn_id: UUID) -> None:
        """Stop a turn at once if it runs in this process; its text is kept."""
        for running in self._of_user(user_id):
            if running.session.turn_id == turn_id:
                running.stop(Stop("stopped"))

    def find(self, key: str, request_hash: str, context: RequestContext) -> RunningTurn | None:
        """The turn of this owner that runs under an idempotency key here. Raises KeyReused for another request.

        Not a turn that is stopping: its readers have left, and its items are read from the database.
        """
        for running in self._of_user(context.user_id):
            if running.session.idempotency_key == key:
                if running.session.request_hash != request_hash:
                    raise KeyReused
                return running
        return None

    def stop_users(self, user_ids: set[str]) -> None:
        """End the turns of users who were disabled; their partial answers are saved."""
        for user_id in user_ids:
            for running in self._of_user(user_id):
                running.stop(Stop("stopped", UserDisabled()))

    def _of_user(self, user_id: str) -> list[RunningTurn]:
        return [running for running in self._running.get(user_id, ()) if not running.is_stopping]

    def _ending_of_user(self, user_id: str) -> list[asyncio.Task[None]]:
        return [running.task for running in self._running.get(user_id, ()) if running.is_ending]

    def _all(self) -> list[RunningTurn]:
        return [running for turns in self._running.values() for running in turns]

    def _forget(self, ended: RunningTurn) -> None:
        turns = self._running[ended.context.user_id]
        turns.discard(ended)
        self.running_count -= 1
        if not turns:
            del self._running[ended.context.user_id]

    def join(self, running: RunningTurn) -> Reader:
        self._metrics.readers.inc()
        return running.buffer.read_from_start()

    def leave(self, running: RunningTurn, reader: Reader) -> None:
        """Remove a reader. When the last one leaves, the turn is stopped: ChatKit's stop button closes the stream."""
        self._metrics.readers.dec()
        running.buffer.leave(reader)
        if (running.on_disconnect or self._on_disconnect) != "stop":
            self._checkpoints.save_soon()
        elif running.has_begun:
            self._stop_if_unread(running)
        else:
            self._in_background(self._stop_once_begun(running))

    async def drain(self, seconds: float) -> None:
        """Refuse new turns, give the running ones ``seconds`` to end, then stop them and wait until they are saved."""
        self.is_draining = True
        tasks = [running.task for running in self._all()]
        if tasks:
            logger.info("draining", turns=len(tasks), seconds=seconds)
            await asyncio.wait(tasks, timeout=seconds)
        # A turn that is being opened finishes that statement first: stopped in the middle of it, the turn could have
        # stored a message whose sender is asked to send it again.
        with suppress(TimeoutError):
            opening = (running.begun() for running in self._all())
            await asyncio.wait_for(asyncio.gather(*opening, return_exceptions=True), SAVE_SECONDS)
        for running in self._all():
            running.stop(Stop("interrupted", Draining()))
        if unsaved := {*tasks, *self._background}:
            # Bounded: an assistant that swallows its cancellation must not keep the process alive.
            await asyncio.wait(unsaved, timeout=SAVE_SECONDS)

    def _close_older_turns(self, newest: RunningTurn) -> None:
        """Close the turns of the thread whose process died. One that runs notices at its next checkpoint that it has
        lost the fence."""
        session = newest.session
        if session.previous_turn_id is not None and session.thread_id is not None:
            self._in_background(self._close_stale_turns(session.thread_id, newest.context))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @staticmethod
    def _stop_if_unread(running: RunningTurn) -> None:
        if running.buffer.readers == 0:
            running.stop(no_readers())

    async def _stop_once_begun(self, running: RunningTurn) -> None:
        """Not in the middle of the statement that opens the turn, which may have stored the message by then."""
        await running.begun()
        self._stop_if_unread(running)

    async def _close_once_begun(self, running: RunningTurn) -> None:
        await running.begun()
        self._close_older_turns(running)

    async def _close_stale_turns(self, thread_id: str, context: RequestContext) -> None:
        try:
            closed = await self._store.turns.close_stale(thread_id, context, stale_seconds=self.limits.stale_seconds)
        except Unavailable:
            return
        except Exception as error:  # noqa: BLE001 - maintenance closes them later
            log_failure(logger, "stale_turns_not_closed", error)
        else:
            for turn in closed:
                self._metrics.count_interrupted_turn(turn.operation)
                logger.warning("interrupted_turns_closed", count=1, turn_ids=[str(turn.turn_id)])
