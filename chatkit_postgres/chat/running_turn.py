"""A turn runs in a task of its own; an HTTP connection is only a reader of it.

With the SDK alone a client that hangs up cancels the generator wherever it stands, and whatever it awaits next is
cancelled again: the partial answer is lost. Here readers come and go without the turn noticing, and the turn is
stopped at most once, by us, for one reason.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from chatkit.errors import ErrorCode
from chatkit.types import ErrorEvent, ThreadStreamEvent

from chatkit_postgres.chat.buffer import Encode, EventBuffer
from chatkit_postgres.context import RequestContext, Turn
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
from chatkit_postgres.store.turns import EndState

CHECKPOINT_SECONDS = 0.5
FIRST_CHECKPOINT_SECONDS = 0.1

logger = get_logger(__name__)

Events = AsyncGenerator[ThreadStreamEvent, None]


@dataclass(frozen=True, slots=True)
class TurnLimits:
    turn_seconds: float = 600
    """A turn that takes longer is ended, with what it has."""
    stale_seconds: float = 30
    """A turn without a heartbeat for so long has lost its process."""
    turns_per_user: int = 20
    """How many a user may have under way in this process."""

    @property
    def heartbeat_seconds(self) -> float:
        return self.stale_seconds / 6


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a turn was ended from outside, and what its readers are told."""

    state: EndState
    error: ChatError | None = None


def no_readers() -> Stop:
    return Stop("stopped")


class RunningTurn:
    def __init__(
        self,
        events: Events,
        context: RequestContext,
        turn: Turn,
        *,
        store: DatabaseStore,
        encode: Encode,
        metrics: Metrics,
        limits: TurnLimits,
    ) -> None:
        self.context = context
        self.turn = turn
        self.buffer = EventBuffer(lambda event: encode(event, context))
        self._events = events
        self._store = store
        self._metrics = metrics
        self._limits = limits
        self._started = time.monotonic()
        self._last_beat = self._started
        self._all_saved_at = self._started
        self._has_checkpoint = False
        self._look_now = asyncio.Event()
        self._primed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop: Stop | None = None
        self._closing = False
        self._error_sent = False
        self._tending = asyncio.create_task(self._tend(), name=f"tend-{context.request_id}")
        self.task = asyncio.create_task(self._run(), name=f"turn-{context.request_id}")
        self.task.add_done_callback(self._end)

    async def primed(self) -> None:
        """Return once there is a first event; raise what kept it from coming."""
        await asyncio.shield(self._primed)

    def stop(self, reason: Stop) -> None:
        """End the turn here and keep what there is. The first reason counts; after the end, none does."""
        if not self._closing and self._stop is None:
            self._stop = reason
            self.task.cancel()

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    def look_now(self) -> None:
        """Something may have happened to the thread: ask the database, do not wait for the next heartbeat."""
        self._look_now.set()

    async def _run(self) -> None:
        state: EndState = "completed"
        error: ChatError | None = None
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._end_here_if_stopped()
                    if isinstance(event, ErrorEvent):
                        state = "failed"
                        self._note(event)
                    self._offer(event)
        except asyncio.CancelledError:
            # Nobody else holds this task, but an assistant may raise it by itself.
            reason = self._stop or Stop("failed", InternalError())
            state, error = reason.state, reason.error
        except Exception as raised:  # noqa: BLE001 - whatever it is, the reader is told and the turn is closed
            state, error = "failed", self._known(raised)
        self._closing = True
        # Not cancelled: that would throw away the connection it may be using.
        self._look_now.set()
        await asyncio.wait({self._tending})
        if error is not None:
            self.turn.error_code = error.code
        if self.turn.error_code == Superseded.code:
            state = "superseded"
        await self._finish(state)
        if error is not None:
            self._tell(error)

    def _end(self, _: asyncio.Task[None]) -> None:
        if not self._primed.done():
            self._primed.set_exception(Draining())
        self._primed.exception()  # Nobody may be waiting for it any more.
        self.buffer.end()

    def _end_here_if_stopped(self) -> None:
        # Somebody's code has swallowed the cancellation.
        if self._stop is not None:
            raise asyncio.CancelledError

    def _note(self, event: ErrorEvent) -> None:
        """A code for the ledger where nobody else had a better one; a replay tells by it whether to try again."""
        if self.turn.error_code is None:
            self.turn.error_code = InternalError.code if event.allow_retry else AssistantRefused.code

    def _offer(self, event: ThreadStreamEvent) -> None:
        if isinstance(event, ErrorEvent):
            if self._error_sent:
                return
            self._error_sent = True
        self.buffer.add(event)
        if not self._primed.done():
            self._metrics.first_event.labels(self.turn.operation).observe(time.monotonic() - self._started)
            self._primed.set_result(None)

    def _tell(self, error: ChatError) -> None:
        if not self._primed.done():
            self._primed.set_exception(error)
        elif isinstance(error, InternalError):
            self._offer(ErrorEvent(code=ErrorCode.STREAM_ERROR, allow_retry=True))
        else:
            self._offer(ErrorEvent(code="custom", message=error.message, allow_retry=error.allow_retry))

    @staticmethod
    def _known(error: Exception) -> ChatError:
        if isinstance(error, ChatError):
            return error
        logger.error("turn_failed", **failure(error))
        return InternalError()

    async def _finish(self, state: EndState) -> None:
        turn = self.turn
        snapshots = [item.snapshot() for item in turn.unfinished.values()]
        unfinished = [item for item in snapshots if item is not None]
        try:
            await self._store.finish_turn(self.context, state, unfinished=unfinished)
        except Exception as error:  # noqa: BLE001 - what was saved is saved; whoever looks next closes the turn
            log_failure(logger, "turn_not_closed", error)
        if turn.is_open:
            self._metrics.turns.labels(turn.operation, state).inc()
        logger.info(
            "turn_ended",
            state=state,
            error_code=turn.error_code,
            thread_id=turn.thread_id,
            seconds=round(time.monotonic() - self._started, 3),
        )

    async def _tend(self) -> None:
        """Checkpoints, heartbeats and the time limit; all of them notice when the thread was taken over."""
        while True:
            # The first checkpoint comes soon: only text that has a row can be kept once the thread is taken over.
            period = CHECKPOINT_SECONDS if self._has_checkpoint else FIRST_CHECKPOINT_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), period)
            if self._closing:
                return
            is_asked = self._look_now.is_set()
            self._look_now.clear()
            now = time.monotonic()
            if now - self._started > self._limits.turn_seconds:
                self.stop(Stop("failed", TurnTimedOut()))
            if self._stop is None and self.turn.is_open:
                works = await self._survived(self._checkpoint())
                if self._closing:
                    return
                if self._stop is None and (is_asked or now - self._last_beat >= self._limits.heartbeat_seconds):
                    self._last_beat = now
                    works = await self._survived(self._store.heartbeat(self.context)) and works
                if not works:
                    await asyncio.sleep(CHECKPOINT_SECONDS)
                    if is_asked:
                        self._look_now.set()
            if self._stop is not None:
                return

    async def _survived(self, step: Awaitable[None]) -> bool:
        """Whether a step of tending worked; one that lost the thread stops the turn."""
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
        turn = self.turn
        if turn.thread_id is None or all(answer.is_saved for answer in turn.unfinished.values()):
            self._all_saved_at = time.monotonic()
            return
        async with turn.writing:
            looked_at = time.monotonic()
            for answer in list(turn.unfinished.values()):
                snapshot = None if answer.is_saved else answer.snapshot()
                if snapshot is not None:
                    answer.is_saved = True
                    try:
                        await self._store.checkpoint(turn.thread_id, snapshot, self.context)
                    except BaseException:
                        answer.is_saved = False
                        raise
            self._has_checkpoint = True
            self._metrics.checkpoint_lag.observe(time.monotonic() - self._all_saved_at)
            self._all_saved_at = looked_at
