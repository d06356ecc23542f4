"""Walks the agents to which another one can hand the conversation over: finds one, and gives all of them tools."""

from collections.abc import Iterator, Sequence
from typing import Any

from agents import Agent, Handoff
from agents.mcp import MCPServer


def find_agent(start: Agent[Any], name: str) -> Agent[Any] | None:
    """The agent of this name that can be reached from ``start`` by handoffs, or ``start`` itself; the nearest one."""
    found, known = [start], {id(start)}
    for agent in found:
        if agent.name == name:
            return agent
        for target in _targets(agent):
            if id(target) not in known:
                known.add(id(target))
                found.append(target)
    return None


def with_servers(
    agent: Agent[Any], servers: Sequence[MCPServer], made: dict[int, Agent[Any]], **changes: Any
) -> Agent[Any]:
    """Copy the agent and, recursively, its handoff targets, and add the servers to each copy; ``made`` has the copies
    so far. An agent inside a ``handoff()`` is not copied."""
    if id(agent) not in made:
        # Two servers may have tools of the same name, and names must not change with the connected servers.
        config: Any = {**agent.mcp_config, "include_server_in_tool_names": True}
        copy = made[id(agent)] = agent.clone(mcp_servers=[*agent.mcp_servers, *servers], mcp_config=config, **changes)
        copy.handoffs = [with_servers(to, servers, made) if isinstance(to, Agent) else to for to in agent.handoffs]
    return made[id(agent)]


def _targets(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    for handoff in agent.handoffs:
        target: object = handoff
        if isinstance(handoff, Handoff):
            # A team may make the object itself, without handoff(); which agent it leads to is known only when it runs.
            reference = handoff._agent_ref  # noqa: SLF001 - see docs/decisions/0006
            target = reference() if reference is not None else None
        if isinstance(target, Agent):
            yield target
