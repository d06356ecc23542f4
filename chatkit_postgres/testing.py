"""For a team's own tests: an agent on the demo model, without a key, a network or a database."""

import asyncio
from typing import Any

from agents import Agent, RunConfig, Runner
from chatkit.agents import AgentContext
from chatkit.types import ThreadMetadata

from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore


def demo_answer(agent: Agent[Any], message: str, *, user_id: str = "user") -> str:
    """What the agent answers to a user's message. The demo model calls a tool when the message names it word by word,
    with the message's numbers as arguments, and then says what the tool said."""
    context = AgentContext[Any](
        thread=ThreadMetadata.model_validate({"id": "thr_test", "created_at": "2025-01-01T00:00:00"}),
        store=DatabaseStore(Database("postgresql:///")),
        request_context=RequestContext(user_id=user_id),
    )
    run = Runner.run(
        agent,
        message,
        context=context,
        run_config=RunConfig(model_provider=DemoModels(seconds_per_word=0), tracing_disabled=True),
    )
    return str(asyncio.run(run).final_output)
