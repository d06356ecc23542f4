"""Lets each approved call run once, whatever dies: its beginning is saved before it runs, its output after it."""

import asyncio
from contextvars import ContextVar
from typing import Any

from agents import Agent, RunState
from chatkit.agents import AgentContext

from chatkit_postgres.assistant.answer_store import store_of
from chatkit_postgres.assistant.approvals.paused_runs import ModelInput, SavedRun
from chatkit_postgres.assistant.model_input.tool_memory import output_text
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Superseded, Unavailable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.approvals import AskedCall, PausedRun

PAUSES = (0.5, 1, 2, 4)
"""Seconds between the tries to save an output."""


class ApprovedCalls:
    """The approved calls of a run that goes on."""

    def __init__(self, paused: PausedRun, thread_id: str, store: DatabaseStore, context: RequestContext) -> None:
        self._thread_id = thread_id
        self._store = store
        self._context = context
        self._not_begun = {call.call_id: call for call in paused.calls if call.may_run}
        self._running: dict[str, AskedCall] = {}

    async def begin(self, call_id: str) -> None:
        """Called before a tool runs. Raises Superseded if another turn has taken the run, before the tool runs."""
        call = self._not_begun.pop(call_id, None)
        if call is None:
            return
        if not await self._store.approvals.begin_call(self._thread_id, call.item_id, self._context):
            raise Superseded
        self._running[call_id] = call

    async def end(self, call_id: str, output: object) -> None:
        """Called after a tool has run. What has happened must not be forgotten: tried for some seconds."""
        call = self._running.pop(call_id, None)
        if call is None:
            return
        for seconds in PAUSES:
            try:
                await self._store.approvals.end_call(self._thread_id, call.item_id, output_text(output), self._context)
            except Unavailable:
                await asyncio.sleep(seconds)
            else:
                return
        await self._store.approvals.end_call(self._thread_id, call.item_id, output_text(output), self._context)

    async def begin_others(self) -> None:
        """Begin the calls that report neither their beginning nor their end: no functions, or tools of the provider."""
        for call in [call for call in self._not_begun.values() if not call.is_function]:
            await self.begin(call.call_id)


approved_calls: ContextVar[ApprovedCalls | None] = ContextVar("approved_calls", default=None)
"""Those of the current run; set where the run begins, and seen by the runs that it starts."""


async def resumed(
    saved: SavedRun, agent: Agent[Any], context: AgentContext[RequestContext], model_input: ModelInput | None = None
) -> RunState[Any]:
    """The saved run, whose approved calls run once from here on. Raises ApprovalLost."""
    calls = ApprovedCalls(saved.paused, context.thread.id, store_of(context), context.request_context)
    approved_calls.set(calls)
    state = await saved.restored(agent, model_input)
    await calls.begin_others()
    return state
