"""The private names of other packages that we call or override, each held to what we rely on.

If one of these fails after an upgrade, the upper bound in pyproject.toml has done its work.
"""

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import tomllib
from typing import Any

import pytest
import uvicorn._types
from agents import Agent, handoff
from agents.exceptions import _mark_error_to_drain_stream_events, _should_drain_stream_events_before_raising
from chatkit.agents import AgentContext, _AsyncQueueIterator, stream_agent_response
from chatkit.types import (
    ProgressUpdateEvent,
    ThreadMetadata,
)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

import chatkit_postgres
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.items import NAIVE
from tests.support.processes import ROOT

PACKAGES = frozenset(
    {"aiohttp", "agents", "asyncpg", "chatkit", "fastapi", "httpx2", "openai", "sqlalchemy", "uvicorn"}
)

KNOWN = {
    "agents": {"_agent_ref", "_mark_error_to_drain_stream_events"},
    "asyncpg": {"_transport"},
    "chatkit": {"_events"},
    "uvicorn": {"_start_asgi_task", "_types"},
}
"""All there are; each stands in the decision, and has a test below."""

DECISION = ROOT / "docs/decisions/0006-private-names-of-the-sdk.md"

ALICE = RequestContext(user_id="alice")


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _imported() -> set[str]:
    """Private modules, and private names of modules."""
    found = set()
    for path in (ROOT / "chatkit_postgres").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                found |= {part for part in (node.module or "").split(".") if _is_private(part)}
                found |= {alias.name for alias in node.names if _is_private(alias.name)}
    return found


def _of_bases() -> set[str]:
    """What our classes override of, or ask of, the classes that they extend."""
    found = set()
    for module in pkgutil.walk_packages(chatkit_postgres.__path__, "chatkit_postgres."):
        if module.name.endswith("__main__") or ".migrations" in module.name:
            continue
        for made in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(made) or made.__module__ != module.name:
                continue
            bases = [base for base in made.__mro__ if base.__module__.split(".")[0] in PACKAGES]
            theirs = {name for base in bases for name in re.findall(r"\bself\.(_[a-z]\w*)", _source(base))}
            theirs |= {name for base in bases for name in vars(base)}
            ours = set(re.findall(r"\b(?:self|super\(\))\.(_[a-z]\w*)", _source(made))) | set(vars(made))
            found |= {name for name in theirs & ours if _is_private(name)}
    return found - {"_abc_impl"}


def _source(kind: type[Any]) -> str:
    try:
        return inspect.getsource(kind)
    except OSError:
        # Made at run time: a generic model with its parameter.
        return ""


def _looked_at() -> set[str]:
    """Where the linter was told that it is meant so."""
    lines = "\n".join(path.read_text() for path in (ROOT / "chatkit_postgres").rglob("*.py")).splitlines()
    marked = [line.partition("#")[0] for line in lines if "noqa: SLF001" in line]
    return {name for line in marked for name in re.findall(r"(?<!self)\.(_[a-z]\w*)", line)} - {"_exit"}


def test_there_are_no_other_private_names_of_other_packages() -> None:
    known = set().union(*KNOWN.values())
    assert _imported() | _of_bases() | _looked_at() == known
    decision = DECISION.read_text()
    assert [name for name in known if f"`{name}`" not in decision] == []


def test_the_model_side_has_three_of_them() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "chatkit_postgres/assistant").rglob("*.py"))
    assert {name for name in KNOWN["agents"] | KNOWN["chatkit"] if name in text} == {
        "_agent_ref",
        "_events",
        "_mark_error_to_drain_stream_events",
    }


@pytest.mark.parametrize("package", ["openai-chatkit", "openai-agents", "openai", "uvicorn", "aiohttp", "httpx2"])
def test_what_we_reach_into_has_an_upper_bound(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    (found,) = [line for line in required if re.match(rf"{package}(\[.*\])?[<>=]", line)]
    assert ",<" in found


def test_errors_are_marked_so_that_what_came_before_them_is_delivered() -> None:
    error = ValueError()
    assert not _should_drain_stream_events_before_raising(error)
    _mark_error_to_drain_stream_events(error)
    assert _should_drain_stream_events_before_raising(error)


def test_a_handoff_knows_its_agent() -> None:
    agent = Agent[Any](name="Plumber")
    reference = handoff(agent)._agent_ref
    assert reference is not None
    assert reference() is agent


def test_the_protocol_has_what_ours_sets_and_asks() -> None:
    """Every name of uvicorn's that BoundedHttpProtocol uses, also those without an underscore: none is documented."""
    source = inspect.getsource(HttpToolsProtocol)
    set_by_it = set(re.findall(r"self\.(\w+)\b(?:: .*)? =", source))
    for name in ("config", "cycle", "headers", "loop", "parser", "pipeline", "timeout_keep_alive", "transport"):
        assert name in set_by_it, name
    assert "timeout_keep_alive_task" in set_by_it
    for method in ("connection_made", "connection_lost", "data_received", "on_message_begin", "on_header", "on_body"):
        assert callable(getattr(HttpToolsProtocol, method))
    for method in ("on_headers_complete", "on_message_complete", "on_response_complete", "pause_writing"):
        assert callable(getattr(HttpToolsProtocol, method))
    assert callable(HttpToolsProtocol.timeout_keep_alive_handler)
    assert parameters(HttpToolsProtocol._start_asgi_task) == ["self", "cycle", "app"]
    cycle = inspect.getsource(RequestResponseCycle)
    assert all(
        f"self.{name}" in cycle
        for name in ("keep_alive", "more_body", "response_complete", "chunked_encoding", "expected_content_length")
    )
    # Asked for when the task begins, so a cycle may get another one before.
    assert re.search(r"app\(.*\s+self\.scope, self\.receive, self\.send\s+\)", cycle)
    assert {"ASGI3Application", "ASGISendEvent"} <= set(vars(uvicorn._types))


async def test_any_event_ends_the_wait_for_the_queue_of_an_agent_context(store: DatabaseStore) -> None:
    """``stream`` is public, and does it for a turn that was stopped."""
    context: AgentContext[RequestContext] = AgentContext(
        thread=ThreadMetadata(id="t", created_at=NAIVE), store=store, request_context=ALICE
    )
    assert context._events.empty()
    waiting = asyncio.create_task(_AsyncQueueIterator(context._events).__anext__())  # type: ignore[no-untyped-call]
    await asyncio.sleep(0)
    await context.stream(ProgressUpdateEvent(text=""))
    await asyncio.wait({waiting}, timeout=5)
    assert waiting.done()


def test_an_agents_run_is_asked_for_its_events_and_nothing_else() -> None:
    """So what stands before it, in AgentAssistant, needs no more."""
    used = re.findall(r"\bresult\.\w+", inspect.getsource(stream_agent_response))
    assert used == ["result.stream_events"]
