"""Follows the runs of the Agents SDK that a team's own code starts while a request is handled.

They use the configured models. Those of a ChatKitServer are also counted, their failing tools are logged, and they end
with the turn. Other runs of the process are left alone.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, cast

from agents import (
    Agent,
    AgentHookContext,
    AgentsException,
    ModelProvider,
    MultiProvider,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    RunResult,
    RunResultStreaming,
    RunState,
    Tool,
    ToolErrorFormatterArgs,
    Usage,
)
from agents.run import AgentRunner, ToolErrorFormatter, get_default_agent_runner, set_default_agent_runner
from chatkit.agents import AgentContext

from chatkit_postgres.assistant.agent_tracing import hands_on_spans, has_content
from chatkit_postgres.assistant.approvals.approved_calls import approved_calls, resumed
from chatkit_postgres.assistant.approvals.asking import MakeCard
from chatkit_postgres.assistant.approvals.paused_runs import SavedRun
from chatkit_postgres.assistant.approvals.requests import approval_card
from chatkit_postgres.assistant.approvals.resumed_stream import ResumedStream
from chatkit_postgres.assistant.handoffs import find_agent
from chatkit_postgres.assistant.model_servers.usage import failed_usage, token_counts
from chatkit_postgres.assistant.turn_hooks import ToolErrors, TurnHooks
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store.caller import StoreContext, request_of

TakeOver = Callable[[Agent[Any], Any, dict[str, Any]], Awaitable[RunResult | None]]

_current: ContextVar["FollowedRuns | None"] = ContextVar("followed_runs", default=None)


class FollowedRuns:
    """The runs of one request. With ``counted``, they are those of an answer or a streaming action: their tokens, tools
    and agents are recorded."""

    def __init__(
        self,
        models: ModelProvider | None,
        request: RequestContext,
        *,
        counted: bool = False,
        is_traced: bool = False,
    ) -> None:
        self._models = models
        self._request = request
        self._counted = counted
        self._is_traced = is_traced
        self._has_ended = False
        self._failed: Counter[str] = Counter()
        # By identity, because an agent that is a tool adds to the usage object of the run that calls the tool.
        self._usages: dict[int, Usage] = {}
        self._streams: list[RunResultStreaming] = []
        self.context: AgentContext[RequestContext] | None = None
        """Of the answer, for those who ask for approvals."""
        self.make_card: MakeCard = lambda asked, _: approval_card(asked)
        self.take_over: TakeOver | None = None
        """Runs an agent in place of the Agents SDK; if it returns None, the SDK does."""
        self._is_guarded: dict[int, bool] = {}
        self.hooks: list[ToolErrors] = []
        """Of the streamed runs, which are the answer."""

    def follow(self) -> None:
        """Called in the task that starts the runs, or in an ancestor of this task."""
        _current.set(self)
        if self._counted:
            failed_usage.set(self._failed)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow the runs that start in the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self.end()

    def end(self) -> None:
        """Cancel streams that still run, and record the turn's tokens."""
        self._has_ended = True
        if _current.get() is self:
            _current.set(None)
        for stream in self._streams:
            stream.cancel()
        for usage in self._usages.values():
            self._failed.update(token_counts(usage))
        if self._counted and self._failed:
            self._request.outcome.usage = dict(self._failed)

    def counts(self, options: dict[str, Any]) -> bool:
        """Whether a run belongs to this request. Runs that a background task of this request starts after its end, or
        for another request, do not."""
        request = _request_behind(options.get("context"))
        return self._counted and not self._has_ended and _is_same(request, self._request)

    def note(self, usage: Usage) -> None:
        self._usages[id(usage)] = usage

    def note_stream(self, stream: RunResultStreaming) -> None:
        self._streams.append(stream)
        self.note(stream.context_wrapper.usage)

    def note_agent(self, run: object, agent: Agent[Any]) -> None:
        """Record the agent that starts in a streamed run."""
        self._is_guarded[id(run)] = bool(agent.output_guardrails)
        session = self._request.session
        if self._counted and session is not None:
            session.sender_name = agent.name
            # The guardrails of the agent that ends a run judge its answer; a single guarded run makes that a draft.
            session.awaits_verdict = any(self._is_guarded.values())

    def taken_run(self, agent: Agent[Any]) -> SavedRun | None:
        """The run that this turn goes on with, if ``agent`` can have begun it."""
        notes, context = self._request.history_notes, self.context
        if notes.paused_run is None or context is None:
            return None
        saved = SavedRun(notes.paused_run)
        if find_agent(agent, saved.current_agent) is None:
            return None
        notes.paused_run = None
        return saved

    async def resumed(self, saved: SavedRun, agent: Agent[Any]) -> RunState[Any]:
        if self.context is None:
            raise RuntimeError("no answer is being made")
        return await resumed(saved, agent, self.context)

    def options(self, given: dict[str, Any], *, is_answer: bool) -> dict[str, Any]:
        """A run's arguments, with our models, hooks and error handlers added to those of the caller."""
        if not self.counts(given):
            changed = given | {"run_config": self._config(given.get("run_config"), None)}
            # A run inside of a tool may have approved calls, too.
            return changed if approved_calls.get() is None else changed | {"hooks": _Hooks(given.get("hooks"), None)}
        hooks = _Hooks(given.get("hooks"), self if is_answer else None)
        if is_answer:
            self.hooks.append(hooks)
        return given | {
            "run_config": self._config(given.get("run_config"), hooks),
            "hooks": hooks,
            "error_handlers": {"model_refusal": hooks.on_refusal} | dict(given.get("error_handlers") or {}),
        }

    def _config(self, given: RunConfig | dict[str, Any] | None, hooks: "_Hooks | None") -> RunConfig:
        config = RunConfig(**given) if isinstance(given, dict) else given or RunConfig()
        changes: dict[str, Any] = {"tracing_disabled": config.tracing_disabled or not self._is_traced}
        if hands_on_spans() and not config.tracing_disabled:
            changes["tracing_disabled"] = False
            if not self._is_traced:
                changes["trace_include_sensitive_data"] = config.trace_include_sensitive_data and has_content()
        if hooks is not None:
            changes["tool_error_formatter"] = _both(hooks.on_tool_error, config.tool_error_formatter)
        # Replace only the SDK's default provider, not one that the caller has chosen.
        if self._models is not None and type(config.model_provider) is MultiProvider:
            changes["model_provider"] = self._models
        return replace(config, **changes)


def _both(ours: Callable[[ToolErrorFormatterArgs[Any]], None], theirs: ToolErrorFormatter | None) -> ToolErrorFormatter:
    def formatted(args: ToolErrorFormatterArgs[Any]) -> Any:
        ours(args)
        return theirs(args) if theirs is not None else None

    return formatted


def _is_same(request: StoreContext | None, other: RequestContext) -> bool:
    """Also for a copy of the request that a team has made with other fields; None belongs to every request."""
    return request is None or (isinstance(request, RequestContext) and request.outcome is other.outcome)


def _request_behind(context: Any) -> StoreContext | None:
    """The request in a run's context, or None."""
    if isinstance(context, RunContextWrapper):
        context = context.context
    return request_of(getattr(context, "request_context", context))


class _Hooks(ToolErrors):
    """Calls our hooks, then those of the run's caller. ``runs`` is None for a run that is not the answer."""

    def __init__(self, theirs: RunHooks[Any] | None, runs: FollowedRuns | None) -> None:
        super().__init__()
        self._theirs: RunHooks[Any] = theirs or RunHooks()
        self._runs = runs

    async def on_llm_start(self, *args: Any, **named: Any) -> None:
        await self._theirs.on_llm_start(*args, **named)

    async def on_llm_end(self, *args: Any, **named: Any) -> None:
        await self._theirs.on_llm_end(*args, **named)

    async def on_agent_start(self, context: AgentHookContext[Any], agent: Any) -> None:
        if self._runs is not None:
            self._runs.note_agent(self, agent)
        await self._theirs.on_agent_start(context, agent)

    async def on_agent_end(self, *args: Any, **named: Any) -> None:
        await self._theirs.on_agent_end(*args, **named)

    async def on_handoff(self, *args: Any, **named: Any) -> None:
        await self._theirs.on_handoff(*args, **named)

    async def on_tool_start(self, context: Any, agent: Agent[Any], tool: Tool) -> None:
        await super().on_tool_start(context, agent, tool)
        await self._theirs.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: Any, agent: Agent[Any], tool: Tool, result: object) -> None:
        await super().on_tool_end(context, agent, tool, result)
        await self._theirs.on_tool_end(context, agent, tool, result)


class FollowingRunner(AgentRunner):
    """Wraps another runner: the Agents SDK's own, or one that the process has set."""

    def __init__(self, runner: AgentRunner) -> None:
        super().__init__()
        self._runner = runner

    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> RunResult:
        runs = _runs_for(options)
        if runs is None or not runs.counts(options):
            changed = options if runs is None else runs.options(options, is_answer=False)
            return await self._runner.run(starting_agent, input, **changed)
        if runs.take_over is not None and (taken := await runs.take_over(starting_agent, input, options)) is not None:
            return taken
        if (saved := runs.taken_run(starting_agent)) is not None:
            input = await runs.resumed(saved, starting_agent)  # noqa: A001 - the Agents SDK's name
        # What the model takes of a run that is cut off is not known; that it was called is.
        runs.note(Usage())
        try:
            result = await self._runner.run(starting_agent, input, **runs.options(options, is_answer=False))
        except AgentsException as error:
            if error.run_data is not None:
                runs.note(error.run_data.context_wrapper.usage)
            raise
        runs.note(result.context_wrapper.usage)
        return result

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> RunResultStreaming:
        runs = _runs_for(options)
        if runs is None:
            return self._runner.run_streamed(starting_agent, input, **options)
        changed = runs.options(options, is_answer=True)
        if runs.counts(options) and (saved := runs.taken_run(starting_agent)) is not None:
            state = runs.resumed(saved, starting_agent)
            return cast(
                RunResultStreaming, ResumedStream(starting_agent, state, self._runner, changed, runs.note_stream)
            )
        stream = self._runner.run_streamed(starting_agent, input, **changed)
        if runs.counts(options):
            runs.note_stream(stream)
        return stream


def followed_runs() -> FollowedRuns | None:
    """Those of the request that is being handled."""
    return _current.get()


def _runs_for(options: dict[str, Any]) -> FollowedRuns | None:
    """None outside of a request, and for a run that AgentAssistant has equipped itself."""
    return None if isinstance(options.get("hooks"), TurnHooks) else _current.get()


def follow_runs() -> None:
    """Put FollowingRunner before the Agents SDK's default runner. Idempotent."""
    before = get_default_agent_runner()
    if not isinstance(before, FollowingRunner):
        set_default_agent_runner(FollowingRunner(before))
