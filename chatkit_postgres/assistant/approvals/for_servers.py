"""Approvals for the runs of a team's own ``ChatKitServer``."""

from typing import Any

from chatkit.agents import AgentContext
from chatkit.types import ThreadItemDoneEvent

from chatkit_postgres.assistant.approvals.asking import ask
from chatkit_postgres.assistant.approvals.paused_runs import AnyRun, Origin
from chatkit_postgres.assistant.approvals.resumed_stream import ResumedStream
from chatkit_postgres.assistant.runs import followed_runs
from chatkit_postgres.assistant.tools.labels import readable


async def approvals(run: AnyRun, context: AgentContext[Any]) -> bool:
    """Ask the user about the calls of tools for which a run has stopped. Returns whether there are any.

    Call it in ``respond``, after the events of the run, with the run and its context. After the user's last answer,
    ``respond`` is called without a message, and the agent that it runs goes on with the saved run; the input that it is
    given is ignored. Raises RuntimeError outside of ``respond``.
    """
    given: Any = run
    real = given.run if isinstance(given, ResumedStream) else run
    if real is None or not real.interruptions:
        return False
    runs = followed_runs()
    live = runs.context if runs is not None else None
    if runs is None or live is None or not runs.counts({"context": context}):
        raise RuntimeError("approvals() asks while an answer is made: call it in respond()")
    for card in await ask(
        real, live, Origin(real.last_agent.name), label=lambda name, _: readable(name), make_card=runs.make_card
    ):
        await live.stream(ThreadItemDoneEvent(item=card))
    return True
