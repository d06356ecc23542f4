"""Finds an agent among those to which another one can hand the conversation over."""

from collections.abc import Iterator
from typing import Any

from agents import Agent, Handoff


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


def _targets(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    for handoff in agent.handoffs:
        target: object = handoff
        if isinstance(handoff, Handoff):
            # A team may make the object itself, without handoff(); which agent it leads to is known only when it runs.
            reference = handoff._agent_ref  # noqa: SLF001 - see docs/decisions/0006
            target = reference() if reference is not None else None
        if isinstance(target, Agent):
            yield target
