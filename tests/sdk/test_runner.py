"""How the Agents SDK finds the runner that we put in place of its own; its docstrings call that experimental."""

import inspect

import pytest
from agents import Agent, RunConfig, Runner, RunResult, RunResultStreaming, Usage
from agents.run import AgentRunner, RunOptions, get_default_agent_runner, set_default_agent_runner
from agents.tool import function_tool

from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.assistant.runs import FollowedRuns, FollowingRunner, follow_runs

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


async def test_runs_of_others_are_left_alone_and_ours_are_counted_once() -> None:
    follow_runs()
    assert isinstance(get_default_agent_runner(), FollowingRunner)
    alone = await Runner.run(Agent[None](name="A"), "Hello", run_config=DEMO)
    assert "demo model" in str(alone.final_output)
    runs = FollowedRuns(DemoModels(seconds_per_word=0), None, is_traced=False)
    runs.follow()
    # Without a configuration of its own: it would go to OpenAI otherwise.
    ours = await Runner.run(Agent[None](name="B"), "Hello")
    assert "demo model" in str(ours.final_output)
    runs.end()
