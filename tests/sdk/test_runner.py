"""How the Agents SDK finds the runner that we put in place of its own; its docstrings call that experimental."""

import asyncio
import contextvars
import inspect
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    RunConfig,
    RunHooks,
    Runner,
    RunResult,
    RunResultStreaming,
    Usage,
    output_guardrail,
)
from agents.run import AgentRunner, RunOptions, get_default_agent_runner, set_default_agent_runner
from agents.tool import function_tool

from chatkit_postgres.assistant.model_servers.usage import token_counts
from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.assistant.runs import FollowedRuns, _Hooks, follow_runs
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store.session import WriteSession

DEMO = RunConfig(model_provider=DemoModels(seconds_per_word=0), tracing_disabled=True)


@pytest.fixture(autouse=True)
def _as_it_was() -> object:
    before = get_default_agent_runner()
    yield
    set_default_agent_runner(before)


class Noting(AgentRunner):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, set[str]]] = []

    async def run(self, starting_agent, input, **options) -> RunResult:  # type: ignore[no-untyped-def]  # noqa: ANN001, A002, ANN003
        self.seen.append(("run", set(options)))
        return await super().run(starting_agent, input, **options)

    def run_streamed(self, starting_agent, input, **options) -> RunResultStreaming:  # type: ignore[no-untyped-def]  # noqa: ANN001, A002, ANN003
        self.seen.append(("run_streamed", set(options)))
        return super().run_streamed(starting_agent, input, **options)


async def test_every_run_asks_the_default_runner_with_its_options_by_name() -> None:
    runner = Noting()
    set_default_agent_runner(runner)
    agent = Agent[None](name="A")
    await Runner.run(agent, "Hello", run_config=DEMO)
    async for _ in Runner.run_streamed(agent, "Hello", run_config=DEMO).stream_events():
        pass
    assert [name for name, _ in runner.seen] == ["run", "run_streamed"]
    for _, options in runner.seen:
        assert {"run_config", "hooks", "context"} <= options <= set(RunOptions.__annotations__) | {"max_turns"}
    assert list(inspect.signature(AgentRunner.run).parameters) == ["self", "starting_agent", "input", "kwargs"]


async def test_an_agent_that_is_a_tool_counts_into_the_run_that_calls_it() -> None:
    """So that usage is added up once."""
    usages: list[Usage] = []

    class Counting(AgentRunner):
        async def run(self, starting_agent, input, **options) -> RunResult:  # type: ignore[no-untyped-def]  # noqa: ANN001, A002, ANN003
            result = await super().run(starting_agent, input, **options)
            usages.append(result.context_wrapper.usage)
            return result

    set_default_agent_runner(Counting())

    @function_tool
    def current_time() -> str:
        return "noon"

    inner = Agent[None](name="Inner", tools=[current_time])
    tool = inner.as_tool("ask_inner", "Asks.", run_config=DEMO)
    await Runner.run(Agent[None](name="Outer", tools=[tool]), "ask inner the time", run_config=DEMO)
    assert len(usages) == 2
    assert usages[0] is usages[1]


async def test_runs_outside_of_a_request_are_left_alone_and_those_of_one_are_counted() -> None:
    follow_runs()
    session = WriteSession("threads.create")
    request = RequestContext(user_id="alice", session=session)
    runs = FollowedRuns(DemoModels(seconds_per_word=0), request, counted=True)
    await Runner.run(Agent[None](name="A"), "Hello", run_config=DEMO)
    runs.end()
    assert request.outcome.usage is None
    runs = FollowedRuns(DemoModels(seconds_per_word=0), request, counted=True)
    runs.follow()
    # Without a configuration of its own: it would go to OpenAI otherwise.
    stream = Runner.run_streamed(Agent[None](name="B"), "Hello")
    async for _ in stream.stream_events():
        pass
    runs.end()
    assert request.outcome.usage is not None
    assert request.outcome.usage == token_counts(stream.context_wrapper.usage)
    assert request.outcome.usage["output_tokens"] > 0
    assert session.sender_name == "B"


async def test_a_run_for_another_request_or_after_the_end_is_counted_for_nobody() -> None:
    """A worker that one user's answer has started inherits what follows that answer's runs."""
    follow_runs()
    session = WriteSession("threads.create")
    alice, bob = RequestContext(user_id="alice", session=session), RequestContext(user_id="bob")
    runs = FollowedRuns(DemoModels(seconds_per_word=0), alice, counted=True)
    runs.follow()
    inherited = contextvars.copy_context()
    of_bob = await Runner.run(Agent[Any](name="Bob's"), "Hello", context=bob)
    assert "demo model" in str(of_bob.final_output)
    runs.end()
    late = asyncio.create_task(Runner.run(Agent[Any](name="Late"), "Hello", context=alice), context=inherited)
    # The configured models still, and nothing else.
    assert "demo model" in str((await late).final_output)
    assert alice.outcome.usage is None
    assert session.sender_name is None


async def test_one_guarded_run_of_several_makes_the_answer_a_draft() -> None:
    session = WriteSession("threads.create")
    runs = FollowedRuns(None, RequestContext(user_id="alice", session=session), counted=True)

    @output_guardrail
    async def judge(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    first, second = object(), object()
    runs.note_agent(first, Agent[Any](name="Guarded", output_guardrails=[judge]))
    runs.note_agent(second, Agent[Any](name="Helper"))
    assert session.awaits_verdict
    runs.note_agent(first, Agent[Any](name="Handed over"))
    assert not session.awaits_verdict


async def test_a_runner_that_the_process_has_chosen_is_asked_behind_ours() -> None:
    theirs = Noting()
    set_default_agent_runner(theirs)
    follow_runs()
    follow_runs()
    await Runner.run(Agent[None](name="A"), "Hello", run_config=DEMO)
    assert [name for name, _ in theirs.seen] == ["run"]


async def test_a_handoff_and_a_tool_reach_the_hooks_of_who_runs() -> None:
    """The Agents SDK calls some of them with names."""
    called: list[str] = []

    class Theirs(RunHooks[Any]):
        async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
            called.append(f"handoff to {to_agent.name}")

        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            called.append(f"{tool.name}: {result}")

    @function_tool
    def current_time() -> str:
        return "noon"

    follow_runs()
    request = RequestContext(user_id="alice", session=WriteSession("threads.create"))
    runs = FollowedRuns(DemoModels(seconds_per_word=0), request, counted=True)
    runs.follow()
    returns = Agent[Any](name="Returns")
    front = Agent[Any](name="Front", handoffs=[returns], tools=[current_time])
    await Runner.run(front, "What about returns?", hooks=Theirs())
    stream = Runner.run_streamed(front, "What is the current time?", hooks=Theirs())
    async for _ in stream.stream_events():
        pass
    runs.end()
    assert called == ["handoff to Returns", "current_time: noon"]


def test_every_hook_of_the_sdk_is_passed_on() -> None:
    assert {name for name in dir(RunHooks) if name.startswith("on_")} <= set(vars(_Hooks))
