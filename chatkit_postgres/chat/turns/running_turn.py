"""Runs a turn in a task of its own; an HTTP connection is only a reader of its events.

In the SDK's server a client that disconnects cancels the generator wherever it is, and each later await is cancelled
again, so the partial answer is lost. Here readers join and leave without an effect on the turn, and the turn is stopped
at most once, by the runner, for one reason.
"""

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Literal

from chatkit.errors import ErrorCode
from chatkit.types import ErrorEvent, StreamOptionsEvent, ThreadStreamEvent

from chatkit_postgres.chat.turns.admission import Admission, notice_of_tokens
from chatkit_postgres.chat.turns.beginnings import Beginning, Beginnings
from chatkit_postgres.chat.turns.buffer import Encode, EventBuffer
from chatkit_postgres.chat.turns.checkpoints import Checkpoints
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.turn_span import turn_span
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import BEGINNING, TURN, wait_policy
from chatkit_postgres.errors import (
    AssistantRefused,
    ChatError,
    DatabaseUnavailable,
    Draining,
    InternalError,
    Interrupted,
    Superseded,
    TooManyRequests,
    TurnTimedOut,
)
from chatkit_postgres.observability.logs import failure, get_logger, log_failure
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.outcome import EndState

OnDisconnect = Literal["stop", "finish"]
"""What a turn does when its last reader leaves."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnLimits:
    turn_seconds: float = 600
    """A turn that takes longer is ended; its partial answer is saved."""
    stale_seconds: float = 30
    """Seconds without a heartbeat after which a turn counts as interrupted."""
    turns_per_user: int = 20
    """Maximum running turns of one user."""
    max_turns: int = 2000
    """Maximum running turns in this process."""
    beginning_turns: int = 32
    """Maximum turns that load and save what comes before their answer; others wait until one of these begins."""

    @property
    def heartbeat_seconds(self) -> float:
        return self.stale_seconds / 6


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a turn was ended from outside, and the error that its readers receive."""

    state: EndState
    error: ChatError | None = None


def no_readers() -> Stop:
    return Stop("stopped")


class RunningTurn:
    def __init__(
        self,
        events: Events,
        context: RequestContext,
        draft: Draft,
        *,
        store: DatabaseStore,
        checkpoints: Checkpoints,
        beginnings: Beginnings,
        admission: Admission,
        encode: Encode,
        metrics: Metrics,
        limits: TurnLimits,
    ) -> None:
        self.context = context
        self.draft = draft
        self.on_disconnect: OnDisconnect | None = None
        """As its client asked; None: as the server is set."""
        self.session = required_session(context)
        # Only the same request under the same key can join later.
        is_repeatable = self.session.idempotency_key is not None
        self.buffer = EventBuffer(lambda event: encode(event, context), is_repeatable=is_repeatable)
        self._events = events
        self._outcome = context.outcome
        self._store = store
        self._checkpoints = checkpoints
        self._beginning = Beginning(beginnings)
        self._admission = admission
        self._may_hold = False
        self._metrics = metrics
        self._started = time.monotonic()
        loop = asyncio.get_running_loop()
        self._primed: asyncio.Future[None] = loop.create_future()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._stop: Stop | None = None
        self._closing = False
        self._error_sent = self._has_sent = False
        self._time_limit = loop.call_later(limits.turn_seconds, self._stop_late)
        checkpoints.add(self)
        self.task = asyncio.create_task(self._run(), name=f"turn-{context.request_id}")
        self.task.add_done_callback(self._end)

    async def primed(self, seconds: float | None = None) -> None:
        """Return once there is a first event. Raises the error that prevented it.

        Returns after ``seconds``, too, if the turn still waits for others to begin; from then on an error is an event
        of the stream.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._primed)
        if self._beginning.is_waiting and not self._primed.done():
            self._primed.set_result(None)
        await asyncio.shield(self._primed)

    @property
    def has_begun(self) -> bool:
        """Whether there was a first event, or it has ended without one."""
        return self._begun.done()

    async def begun(self) -> None:
        await asyncio.shield(self._begun)

    def stop(self, reason: Stop) -> None:
        """End the turn and save its partial answer. Only the first reason counts; after the end, none does."""
        if not self._closing and self._stop is None:
            self._stop = reason
            self.task.cancel()

    def _stop_late(self) -> None:
        self.stop(Stop("failed", TurnTimedOut()))

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    @property
    def is_ending(self) -> bool:
        return self._stop is not None or self._closing

    @property
    def is_open(self) -> bool:
        """Whether it has a thread, and is not ending."""
        return self.session.is_open and not self.is_ending

    def end_by_checkpoint(self, reason: ChatError | None) -> None:
        """End the turn for the reason that a checkpoint has found; None: somebody asked to stop it."""
        match reason:
            case Superseded():
                self.stop(Stop("superseded", reason))
            case Interrupted():
                self.stop(Stop("interrupted", reason))
            case _:
                self.stop(Stop("stopped", reason))

    async def _run(self) -> None:
        with turn_span(self.context) as self._trace:
            await self._run_to_its_end()

    async def _run_to_its_end(self) -> None:
        outcome = self._outcome
        error: ChatError | None = None
        wait_policy.set(BEGINNING)
        try:
            await self._beginning.enter()
            await self._enter()
            async with aclosing(self._events) as events:
                async for event in events:
                    self._raise_if_stopped()
                    if isinstance(event, StreamOptionsEvent):
                        self._beginning.leave()
                        wait_policy.set(TURN)
                    elif isinstance(event, ErrorEvent):
                        self._record(event)
                    self._trace(event)
                    self._send(event)
        except asyncio.CancelledError:
            # Only the runner cancels this task, but an assistant may raise CancelledError by itself.
            reason = self._stop or Stop("failed", InternalError())
            # A turn that has asked its questions ends as waiting, even if their answers are faster than its end.
            if not (outcome.state == "waiting" and reason.state == "superseded"):
                outcome.state, error = reason.state, reason.error
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - readers receive an error, and the turn is closed
            outcome.state, error = "failed", self._chat_error(raised)
        self._beginning.leave()
        self._closing = True
        wait_policy.set(TURN)
        await self._checkpoints.leave(self)
        if error is not None:
            outcome.error_code = error.code
        if self.session.is_superseded and outcome.state != "waiting":
            outcome.state, outcome.error_code = "superseded", Superseded.code
        await self._finish()
        if error is not None:
            self._send_error(error)

    async def _enter(self) -> None:
        # Before it is sent: the statement may have been run although its answer is lost.
        self._may_hold = True
        try:
            self._may_hold = await self._admission.enter(self.context)
        except TooManyRequests as error:
            self._may_hold = False
            self._metrics.turns_refused.labels(error.code).inc()
            raise

    def _end(self, _: asyncio.Task[None]) -> None:
        self._time_limit.cancel()
        self._checkpoints.forget(self)
        self._begin()
        if not self._primed.done():
            self._primed.set_exception(Draining())
        self._primed.exception()  # Mark it as retrieved: nobody may be waiting for it any more.
        self.buffer.end()

    def _begin(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)

    def _raise_if_stopped(self) -> None:
        # An assistant's code may have swallowed the cancellation.
        if self._stop is not None:
            raise asyncio.CancelledError

    def _record(self, event: ErrorEvent) -> None:
        """Record a code for the ledger unless there is one already; a replay decides by it whether to allow a retry."""
        self._outcome.state = "failed"
        if self._outcome.error_code is None:
            self._outcome.error_code = InternalError.code if event.allow_retry else AssistantRefused.code

    def _send(self, event: ThreadStreamEvent) -> None:
        if isinstance(event, ErrorEvent):
            if self._error_sent:
                return
            self._error_sent = True
        self.buffer.add(event)
        if not self._has_sent:
            self._has_sent = True
            self._begin()
            self._metrics.first_event.labels(self.session.operation).observe(time.monotonic() - self._started)
        if not self._primed.done():
            self._primed.set_result(None)

    def _send_error(self, error: ChatError) -> None:
        if not self._primed.done():
            if isinstance(error, DatabaseUnavailable):
                self._metrics.turns_refused.labels(error.code).inc()
            self._primed.set_exception(error)
        elif isinstance(error, InternalError):
            self._send(ErrorEvent(code=ErrorCode.STREAM_ERROR, allow_retry=True))
        else:
            self._send(ErrorEvent(code="custom", message=error.message, allow_retry=error.allow_retry))

    @staticmethod
    def _chat_error(error: BaseException) -> ChatError:
        if isinstance(error, ChatError):
            return error
        logger.error("turn_failed", **failure(error))
        return InternalError()

    async def _finish(self) -> None:
        session, outcome = self.session, self._outcome
        try:
            settled = await self._store.turns.finish(self.context, outcome, unfinished=self.draft.snapshots())
            if settled is not None:
                if (notice := notice_of_tokens(settled, self.context.tokens_per_day)) is not None:
                    self._send(notice)
            elif self._may_hold and not session.is_open:
                await self._admission.leave(self.context)
        except Exception as error:  # noqa: BLE001 - maintenance closes the turn; its checkpoints are saved
            log_failure(logger, "turn_not_closed", error)
        if session.is_open:
            self._metrics.turns.labels(session.operation, outcome.state).inc()
        logger.info(
            "turn_ended",
            state=outcome.state,
            error_code=outcome.error_code,
            thread_id=session.thread_id,
            turn_id=str(session.turn_id),
            seconds=round(time.monotonic() - self._started, 3),
        )
