"""Goes on with answered runs whose process died, without their user: an approved tool runs, whatever dies."""

import asyncio
import random

from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.approvals import AbandonedRun
from chatkit_postgres.store.session import WriteSession

OPERATION = "threads.custom_action"
"""The operation of both turns: the one that the answer opened, and the one that resumes the run."""

logger = get_logger(__name__)


class AbandonedRuns:
    def __init__(self, store: DatabaseStore, server: ChatServer, runner: TurnRunner) -> None:
        self._store = store
        self._server = server
        self._runner = runner

    async def watch(self, every_seconds: float) -> None:
        """Look for abandoned runs, repeatedly, until cancelled."""
        while True:
            # Replicas that were started together should not work at the same moment.
            await asyncio.sleep(every_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
            try:
                await self.resume()
            except ChatError:
                continue
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                log_failure(logger, "abandoned_runs_not_found", error)

    async def resume(self) -> None:
        """Start a turn for each abandoned run. Of several processes one gets it."""
        for run in await self._store.approvals.abandoned():
            if run.is_hopeless:
                await self._give_up(run)
            else:
                await self._go_on_with(run)

    async def _give_up(self, run: AbandonedRun) -> None:
        context = RequestContext(user_id=run.owner, claims=run.claims)
        if await self._server.give_up(run.thread_id, run.asked_by, context):
            logger.error(
                "abandoned_run_given_up", thread_id=run.thread_id, cure="its tool, or its model, ends the process"
            )

    async def _go_on_with(self, run: AbandonedRun) -> None:
        context = RequestContext(user_id=run.owner, claims=run.claims).with_session(WriteSession(OPERATION))
        draft = Draft()
        try:
            turn = await self._runner.start(
                self._server.resume(run.thread_id, run.asked_by, context, draft), context, draft
            )
        except ChatError as error:
            # Another process was faster, or this one is full or draining.
            logger.info("abandoned_run_left", reason=error.code)
            return
        turn.on_disconnect = "finish"
        logger.info("abandoned_run_goes_on", thread_id=run.thread_id, turn_id=str(turn.session.turn_id))
