"""Follows the runs of the Agents SDK that a team's own code starts.

They use the configured models, their tokens are counted, failing tools are logged, and they end with the turn. Other
runs of the process are left alone.
"""

from collections import Counter
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from agents import (
    Agent,
    AgentHookContext,
    AgentsException,
    ModelProvider,
    MultiProvider,
    RunConfig,
    RunHooks,
    RunResult,
    RunResultStreaming,
    Tool,
    ToolErrorFormatterArgs,
    Usage,
)
from agents.run import AgentRunner, set_default_agent_runner

from chatkit_postgres.assistant.guardrails import told_as_answer
from chatkit_postgres.assistant.turn_hooks import ToolErrors
from chatkit_postgres.assistant.usage import failed_usage, token_counts
from chatkit_postgres.context import Turn

_current: ContextVar["FollowedRuns | None"] = ContextVar("followed_runs", default=None)


class FollowedRuns:
    """The runs of one turn. ``follow`` is called in the task that starts them."""

    def __init__(self, models: ModelProvider | None, turn: Turn | None, *, is_traced: bool) -> None:
        self._models = models
        self._turn = turn
        self._is_traced = is_traced
        self._failed: Counter[str] = Counter()
        # By identity: an agent that is a tool counts into the usage of the run that calls it.
        self._usages: dict[int, Usage] = {}
        self._streams: list[RunResultStreaming] = []

    def follow(self) -> None:
        _current.set(self)
        failed_usage.set(self._failed)

    def end(self) -> None:
        """Stop what still runs, and note what was spent."""
        for stream in self._streams:
            stream.cancel()
        spent = self._failed
        for usage in self._usages.values():
            spent.update(token_counts(usage))
        if self._turn is not None and (self._usages or spent):
            self._turn.usage = dict(spent)

    def note(self, usage: Usage) -> None:
        self._usages[id(usage)] = usage

    def note_stream(self, stream: RunResultStreaming) -> None:
        self._streams.append(stream)
        self.note(stream.context_wrapper.usage)

    def options(self, given: dict[str, Any], *, is_answer: bool) -> dict[str, Any]:
        """The arguments of a run, with ours added where its caller has none."""
        hooks = _Hooks(given.get("hooks"), self._turn if is_answer else None)
        return given | {
            "run_config": self._config(given.get("run_config"), hooks),
            "hooks": hooks,
            "error_handlers": {"model_refusal": told_as_answer} | dict(given.get("error_handlers") or {}),
        }

    def _config(self, given: RunConfig | dict[str, Any] | None, hooks: "_Hooks") -> RunConfig:
        config = RunConfig(**given) if isinstance(given, dict) else given or RunConfig()
        changes: dict[str, Any] = {"tracing_disabled": config.tracing_disabled or not self._is_traced}
        theirs = config.tool_error_formatter

        def formatted(args: ToolErrorFormatterArgs[Any]) -> Any:
            hooks.failed(args)
            return theirs(args) if theirs is not None else None

        changes["tool_error_formatter"] = formatted
        # The SDK's default, and not a provider that somebody has chosen.
        if self._models is not None and type(config.model_provider) is MultiProvider:
            changes["model_provider"] = self._models
        return replace(config, **changes)


class _Hooks(ToolErrors):
    """Ours, then those of the run's caller. ``turn`` is None for a run that is no answer."""

    def __init__(self, theirs: RunHooks[Any] | None, turn: Turn | None) -> None:
        super().__init__()
        self._theirs: RunHooks[Any] = theirs or RunHooks()
        self._turn = turn

    async def on_llm_start(self, *args: Any) -> None:
        await self._theirs.on_llm_start(*args)

    async def on_llm_end(self, *args: Any) -> None:
        await self._theirs.on_llm_end(*args)

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Any) -> None:
        if self._turn is not None:
            self._turn.sender_name = agent.name
            # The guardrails of the agent that ends the run judge its answer.
            self._turn.awaits_verdict = bool(agent.output_guardrails)
        await self._theirs.on_agent_start(context, agent)

    async def on_agent_end(self, *args: Any) -> None:
        await self._theirs.on_agent_end(*args)

    async def on_handoff(self, *args: Any) -> None:
        await self._theirs.on_handoff(*args)

    async def on_tool_start(self, *args: Any) -> None:
        await self._theirs.on_tool_start(*args)

    async def on_tool_end(self, context: Any, agent: Agent[Any], tool: Tool, result: object) -> None:
        await super().on_tool_end(context, agent, tool, result)
        await self._theirs.on_tool_end(context, agent, tool, result)


class FollowingRunner(AgentRunner):
    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> RunResult:
        if (runs := _current.get()) is None:
            return await super().run(starting_agent, input, **options)
        try:
            result = await super().run(starting_agent, input, **runs.options(options, is_answer=False))
        except AgentsException as error:
            if error.run_data is not None:
                runs.note(error.run_data.context_wrapper.usage)
            raise
        runs.note(result.context_wrapper.usage)
        return result

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> RunResultStreaming:
        if (runs := _current.get()) is None:
            return super().run_streamed(starting_agent, input, **options)
        stream = super().run_streamed(starting_agent, input, **runs.options(options, is_answer=True))
        runs.note_stream(stream)
        return stream


def follow_runs() -> None:
    """Make the Agents SDK ask us before each run. Once for a process; again changes nothing."""
    set_default_agent_runner(FollowingRunner())
