"""The store of an answer."""

from typing import Any, cast

from chatkit.agents import AgentContext

from chatkit_postgres.store import DatabaseStore


def store_of(context: AgentContext[Any]) -> DatabaseStore:
    """The store behind the context of an answer, which the SDK knows as a ``Store``."""
    return cast(DatabaseStore, context.store)
