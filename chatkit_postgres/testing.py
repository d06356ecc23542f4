"""Test helpers: run an agent on the demo model, without a key, a network or a database."""

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
    """Run the agent on the demo model, and return its final output. The demo model calls a tool if the message contains
    every word of the tool's name, passes the message's numbers as arguments, and repeats the tool's output. Raises
    RuntimeError inside a running event loop."""
    context = AgentContext[Any](
        thread=ThreadMetadata.model_validate({"id": "thr_test", "created_at": "2025-01-01T00:00:00"}),
        store=DatabaseStore(Database("postgresql:///")),
        request_context=RequestContext(user_id=user_id),
    )
    run = Runner.run(
        agent,
        message,
        context=context,
        # In place of the model that the agent names, or has.
        run_config=RunConfig(model="demo", model_provider=DemoModels(seconds_per_word=0), tracing_disabled=True),
    )
    return str(asyncio.run(run).final_output)
