"""Runs a turn in a task of its own; an HTTP connection is only a reader of its events.

In the SDK's server a client that disconnects cancels the generator wherever it is, and each later await is cancelled
again, so the partial answer is lost. Here readers join and leave without an effect on the turn, and the turn is stopped
at most once, by the runner, for one reason.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from chatkit.errors import ErrorCode
from chatkit.types import ErrorEvent, ThreadItem, ThreadStreamEvent

from chatkit_postgres.chat.pipeline.stage import Events
from chatkit_postgres.chat.turns.buffer import Encode, EventBuffer
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import (
    AssistantRefused,
    ChatError,
    DatabaseUnavailable,
    Draining,
    InternalError,
    Interrupted,
    NotFound,
    Superseded,
    TurnTimedOut,
)
from chatkit_postgres.observability.logs import failure, get_logger, log_failure
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.outcome import EndState

CHECKPOINT_SECONDS = 0.5
FIRST_CHECKPOINT_SECONDS = 0.1

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnLimits:
    turn_seconds: float = 600
    """A turn that takes longer is ended; its partial answer is saved."""
    stale_seconds: float = 30
    """Seconds without a heartbeat after which a turn counts as interrupted."""
    turns_per_user: int = 20
    """Maximum running turns of one user in this process."""

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
        encode: Encode,
        metrics: Metrics,
        limits: TurnLimits,
    ) -> None:
        self.context = context
        self.session = required_session(context)
        self.buffer = EventBuffer(lambda event: encode(event, context))
        self._events = events
        self._draft = draft
        self._outcome = context.outcome
        self._store = store
        self._metrics = metrics
        self._limits = limits
        self._started = time.monotonic()
        self._last_heartbeat = self._started
        self._all_saved_at = self._started
        self._has_checkpoint = False
        self._check_requested = asyncio.Event()
        self._primed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop: Stop | None = None
        self._closing = False
        self._error_sent = False
        self._supervision = asyncio.create_task(self._supervise(), name=f"supervise-{context.request_id}")
        self.task = asyncio.create_task(self._run(), name=f"turn-{context.request_id}")
        self.task.add_done_callback(self._end)

    async def primed(self) -> None:
        """Return once there is a first event. Raises the error that prevented it."""
        await asyncio.shield(self._primed)

    def stop(self, reason: Stop) -> None:
        """End the turn and save its partial answer. Only the first reason counts; after the end, none does."""
        if not self._closing and self._stop is None:
            self._stop = reason
            self.task.cancel()

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    def check_now(self) -> None:
        """Check the fence without waiting for the next heartbeat: a newer turn may have taken the thread."""
        self._check_requested.set()

    async def _run(self) -> None:
        outcome = self._outcome
        error: ChatError | None = None
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._raise_if_stopped()
                    if isinstance(event, ErrorEvent):
                        self._record(event)
                    self._send(event)
        except asyncio.CancelledError:
            # Only the runner cancels this task, but an assistant may raise CancelledError by itself.
            reason = self._stop or Stop("failed", InternalError())
            outcome.state, error = reason.state, reason.error
        except Exception as raised:  # noqa: BLE001 - whatever it is, readers receive an error and the turn is closed
            outcome.state, error = "failed", self._chat_error(raised)
        self._closing = True
        # Not cancelled, which would close the connection that it may be using.
        self._check_requested.set()
        await asyncio.wait({self._supervision})
        if error is not None:
            outcome.error_code = error.code
        if self.session.is_superseded:
            outcome.state, outcome.error_code = "superseded", Superseded.code
        await self._finish()
        if error is not None:
            self._send_error(error)

    def _end(self, _: asyncio.Task[None]) -> None:
        if not self._primed.done():
            self._primed.set_exception(Draining())
        self._primed.exception()  # Mark it as retrieved: nobody may be waiting for it any more.
        self.buffer.end()

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
        if not self._primed.done():
            self._metrics.first_event.labels(self.session.operation).observe(time.monotonic() - self._started)
            self._primed.set_result(None)

    def _send_error(self, error: ChatError) -> None:
        if not self._primed.done():
            self._primed.set_exception(error)
        elif isinstance(error, InternalError):
            self._send(ErrorEvent(code=ErrorCode.STREAM_ERROR, allow_retry=True))
        else:
            self._send(ErrorEvent(code="custom", message=error.message, allow_retry=error.allow_retry))

    @staticmethod
    def _chat_error(error: Exception) -> ChatError:
        if isinstance(error, ChatError):
            return error
        logger.error("turn_failed", **failure(error))
        return InternalError()

    async def _finish(self) -> None:
        session, outcome = self.session, self._outcome
        try:
            await self._store.turns.finish(self.context, outcome, unfinished=self._draft.snapshots())
        except Exception as error:  # noqa: BLE001 - maintenance closes the turn; its checkpoints are saved
            log_failure(logger, "turn_not_closed", error)
        if session.is_open:
            self._metrics.turns.labels(session.operation, outcome.state).inc()
        logger.info(
            "turn_ended",
            state=outcome.state,
            error_code=outcome.error_code,
            thread_id=session.thread_id,
            seconds=round(time.monotonic() - self._started, 3),
        )

    async def _supervise(self) -> None:
        """Make checkpoints and heartbeats, and enforce the time limit. All of them notice a lost fence."""
        while True:
            # The first checkpoint is early: only text that has a row can be saved once another turn has the fence.
            period = CHECKPOINT_SECONDS if self._has_checkpoint else FIRST_CHECKPOINT_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._check_requested.wait(), period)
            if self._closing:
                return
            is_requested = self._check_requested.is_set()
            self._check_requested.clear()
            now = time.monotonic()
            if now - self._started > self._limits.turn_seconds:
                self.stop(Stop("failed", TurnTimedOut()))
            if self._stop is None and self.session.is_open:
                works = await self._succeeded(self._checkpoint())
                if self._closing:
                    return
                is_due = now - self._last_heartbeat >= self._limits.heartbeat_seconds
                if self._stop is None and (is_requested or is_due):
                    self._last_heartbeat = now
                    works = await self._succeeded(self._store.turns.heartbeat(self.context)) and works
                if not works:
                    await asyncio.sleep(CHECKPOINT_SECONDS)
                    if is_requested:
                        self._check_requested.set()
            if self._stop is not None:
                return

    async def _succeeded(self, step: Awaitable[None]) -> bool:
        """Whether a checkpoint or a heartbeat succeeded; one that lost the fence stops the turn."""
        try:
            await step
        except Superseded as error:
            self.stop(Stop("superseded", error))
        except Interrupted as error:
            self.stop(Stop("interrupted", error))
        except NotFound as error:
            self.stop(Stop("stopped", error))
        except DatabaseUnavailable:
            return False
        except Exception as error:  # noqa: BLE001 - the next round tries again
            log_failure(logger, "checkpoint_failed", error)
            return False
        return True

    async def _checkpoint(self) -> None:
        thread_id = self.session.thread_id
        if thread_id is None or self._draft.is_saved:
            self._all_saved_at = time.monotonic()
            return
        started = time.monotonic()

        async def save(item: ThreadItem) -> None:
            await self._store.writer.checkpoint(thread_id, item, self.context)

        if not await self._draft.checkpoint(save):
            return
        self._has_checkpoint = True
        self._metrics.checkpoint_lag.observe(time.monotonic() - self._all_saved_at)
        self._all_saved_at = started
