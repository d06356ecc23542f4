"""Runs an ``agents.Agent`` as an assistant."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents import (
    Agent,
    ModelProvider,
    ModelSettings,
    RunConfig,
    Runner,
    TResponseInputItem,
)
from agents.models import get_default_model_settings
from chatkit.agents import AgentContext, ThreadItemConverter, stream_agent_response
from chatkit.types import (
    InferenceOptions,
    ProgressUpdateEvent,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant.actions import RegisteredAction, rules_of
from chatkit_postgres.assistant.agent_tracing import hands_on_spans, has_content
from chatkit_postgres.assistant.answer_store import store_of
from chatkit_postgres.assistant.approvals.approved_calls import resumed
from chatkit_postgres.assistant.approvals.asking import ask
from chatkit_postgres.assistant.approvals.paused_runs import Origin, SavedRun
from chatkit_postgres.assistant.base import NO_SERVICES, Assistant, Choices, SendDelta, Services
from chatkit_postgres.assistant.handoffs import find_agent, with_servers
from chatkit_postgres.assistant.images import stored_images
from chatkit_postgres.assistant.model_input.client_context import client_context_text
from chatkit_postgres.assistant.model_input.converter import HistoryConverter
from chatkit_postgres.assistant.model_input.tool_memory import ToolMemory, calls_to_input, segments
from chatkit_postgres.assistant.model_servers.usage import failed_usage, token_counts
from chatkit_postgres.assistant.run_events import RunEvents
from chatkit_postgres.assistant.runs import FollowedRuns
from chatkit_postgres.assistant.silence import without_empty_messages
from chatkit_postgres.assistant.tools.client_tools import with_all_calls
from chatkit_postgres.assistant.tools.labels import readable
from chatkit_postgres.assistant.tools.mcp_servers import watcher
from chatkit_postgres.assistant.tools.search_tool import search_conversations
from chatkit_postgres.assistant.turn_hooks import TurnHooks
from chatkit_postgres.assistant.user_errors import user_facing_errors
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store.tool_calls import ToolCall

MAX_MODEL_CALLS = 20


class AgentAssistant(Assistant):
    """``actions`` are functions marked with ``@action``. Without ``converter``, a HistoryConverter converts the
    history. With ``remember_agent``, the agent that spoke last answers the next message, if it can be reached by
    handoffs from the agent that would answer otherwise; one that was renamed is forgotten."""

    def __init__(
        self,
        agent: Agent[Any],
        *,
        actions: Sequence[Callable[..., Any]] = (),
        converter: ThreadItemConverter | None = None,
        remember_agent: bool = False,
    ) -> None:
        self.default_agent, self.name = agent, agent.name
        self._remembers_agent = remember_agent
        self.models: ModelProvider | None = None
        self._converter = converter
        self._actions = actions

    def prepare(self, models: ModelProvider, choices: Choices, services: Services = NO_SERVICES) -> None:
        super().prepare(models, choices, services)
        self.models = models

    async def agent(self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]) -> Agent[Any]:
        """The agent that answers. Override this method to choose one by the message or the user's permissions."""
        return self.default_agent

    async def agent_context(self, context: AgentContext[RequestContext]) -> AgentContext[Any]:
        """The context that tools receive. Override this method to return a subclass of AgentContext, with the
        ``thread``, the ``store`` and the ``request_context`` of the given one."""
        # Any, because pydantic would inspect a RequestContext, which is not a pydantic model.
        return AgentContext[Any](thread=context.thread, store=context.store, request_context=context.request_context)

    def runs_of(self, request: RequestContext) -> FollowedRuns:
        """Runs of guardrails, actions and titles use the configured models, too."""
        return FollowedRuns(self.models, request, is_traced=self.services.is_traced)

    def find_action(self, action_type: str) -> RegisteredAction | None:
        for handler in self._actions:
            rules = rules_of(handler)
            if rules is not None and rules.type == action_type:
                return RegisteredAction(rules, handler)
        return super().find_action(action_type)

    def tool_label(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """The task that the user sees while a function tool runs, and the title of a question for an approval; None
        shows no task. ``name`` is ``mcp_SERVER__TOOL`` for a tool of an MCP server. ``CHAT_SHOW_TOOL_CALLS=false``
        shows no tasks at all."""
        return readable(name)

    def missing_tools(self, names: Sequence[str]) -> list[str]:
        """The names that are no tools of the default agent, with which a run starts. Empty if there are MCP servers,
        because their tools are known only while a server is connected."""
        if self.services.mcp is not None or self.default_agent.mcp_servers:
            return []
        known = {tool.name for tool in self.default_agent.tools}.union(self.own_tool_choices)
        if self.services.can_search:
            known.add(search_conversations.name)
        return [name for name in names if name not in known]

    def converter(self, context: AgentContext[RequestContext]) -> ThreadItemConverter:
        """The converter from thread items to model input."""
        if self._converter is not None:
            return self._converter
        return history_converter(self, context)

    def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        return self._answer(history, context)

    def stream(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], send_delta: SendDelta
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """If a subclass overrides ``respond``, all events are yielded, so that the subclass can see them."""
        is_overridden = getattr(self.respond, "__func__", None) is not AgentAssistant.respond
        return self.respond(history, context) if is_overridden else self._answer(history, context, send_delta)

    async def _answer(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], send_delta: SendDelta | None = None
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        request = context.request_context
        saved = self._taken_run(request)
        wanted, agent = self._wanted(history), await self._starting_agent(history, context, saved)
        # The run has its own context, from which the SDK reads the events of tools and the open workflow.
        running = with_all_calls(await self.agent_context(context))
        for call in saved.client_calls if saved is not None else ():
            running.client_tool_call = call
        # Instead of its own, which is not used: what is streamed through the outer context is sent at once.
        context._events = running._events  # noqa: SLF001 - see docs/decisions/0006
        hooks = TurnHooks(self.tool_label if self.services.shows_tool_calls else None)
        watcher.set(hooks)
        spent = Counter[str]()
        failed_usage.set(spent)
        # Traces send the conversation to a third party, so they are off unless configured.
        is_traced = self.services.is_traced or hands_on_spans()
        run_config = RunConfig(
            model=wanted.model,
            tracing_disabled=not is_traced,
            trace_include_sensitive_data=self.services.is_traced or has_content(),
            tool_error_formatter=hooks.on_tool_error,
        )
        if self.models is not None:
            run_config.model_provider = self.models
        given = history if saved is None else saved.items_of(history)
        if saved is not None:
            # What tools said in the run itself is part of its state.
            request.history_notes.calls.pop(None, None)
        model_input = await self._input(given, context) if given is not None else None
        origin = Origin(agent.name, [item.id for item in given] if given is not None else None, model_input or ())
        # Not kept in memory while the answer streams.
        del history, given
        if saved is not None and self.services.mcp is not None:
            await self.services.mcp.wait_for_tools([call.tool for call in saved.paused.calls])
        equipped = self._equipped(agent, wanted)
        result = Runner.run_streamed(
            equipped,
            list(model_input or ()) if saved is None else await resumed(saved, equipped, context, model_input),
            context=running,
            max_turns=MAX_MODEL_CALLS,
            run_config=run_config,
            error_handlers={"model_refusal": hooks.on_refusal},
            hooks=hooks,
        )
        memory = self._memory(context, saved)
        try:
            run_events = RunEvents(result, request.session, running, send_delta, memory)
            intercepted: Any = run_events
            events = stream_agent_response(running, intercepted, converter=stored_images(agent, context))
            with user_facing_errors():
                async for event in without_empty_messages(events, hooks, waits=lambda: bool(result.interruptions)):
                    yield await running.first_call(event)
            if result.interruptions:
                if (workflow := running.ended_workflow()) is not None:
                    yield ThreadItemDoneEvent(item=workflow)
                for card in await ask(
                    result,
                    context,
                    origin,
                    label=self.tool_label,
                    make_card=self.approval_card,
                    memory=memory,
                    client_calls=run_events.client_calls,
                ):
                    yield ThreadItemDoneEvent(item=card)
        finally:
            spent.update(token_counts(result.context_wrapper.usage))
            request.outcome.usage = dict(spent)
            # After a stopped turn, a task of the SDK still waits for a tool's event; any event ends that wait.
            await running.stream(ProgressUpdateEvent(text=""))
            # Otherwise the model's stream continues after the turn was stopped.
            result.cancel()

    @staticmethod
    def _taken_run(request: RequestContext) -> SavedRun | None:
        """The run that this turn goes on with."""
        paused, request.history_notes.paused_run = request.history_notes.paused_run, None
        return SavedRun(paused) if paused is not None else None

    async def _starting_agent(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext], saved: SavedRun | None
    ) -> Agent[Any]:
        agent, last = await self.agent(history, context), context.request_context.history_notes.last_agent
        if saved is not None:
            return find_agent(agent, saved.agent) or agent
        if self._remembers_agent and last is not None:
            return find_agent(agent, last) or agent
        return agent

    async def _input(
        self, items: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> Sequence[TResponseInputItem]:
        """The items as model input, with the calls of tools between them."""
        converter, calls = self.converter(context), context.request_context.history_notes.calls
        if not calls:
            return await converter.to_agent_input(list(items))
        if isinstance(converter, HistoryConverter):
            converter.calls = calls
            return await converter.to_agent_input(list(items))
        given: list[TResponseInputItem] = []
        for between, part in segments(items, calls):
            given += calls_to_input(between)
            given += await converter.to_agent_input(list(part)) if part else []
        return given

    def _memory(self, context: AgentContext[RequestContext], saved: SavedRun | None) -> ToolMemory:
        async def save(calls: Sequence[ToolCall]) -> None:
            await store_of(context).tool_calls.add(context.thread.id, calls, context.request_context)

        remembers = self.services.remembers_tool_calls and context.request_context.session is not None
        return ToolMemory(save if remembers else None, saved.open_calls if saved is not None else {})

    def _wanted(self, history: Sequence[ThreadItem]) -> InferenceOptions:
        """The model and the tool that the newest message asks for, if they are still allowed. The tool is demanded
        once, and not again after the output of a client tool or answered questions."""
        newest = next((item for item in reversed(history) if isinstance(item, UserMessageItem)), None)
        if newest is None:
            return InferenceOptions()
        model, tool = newest.inference_options.model, newest.inference_options.tool_choice
        demanded = self.choices.tools.difference(self.own_tool_choices)
        is_asked = tool is not None and tool.id in demanded and history[-1] is newest
        return InferenceOptions(
            model=model if model in self.choices.models else None, tool_choice=tool if is_asked else None
        )

    def _equipped(self, agent: Agent[Any], wanted: InferenceOptions) -> Agent[Any]:
        """The agent with the tool choice of the message, and with the tools of the settings and of MCP servers."""
        changes: dict[str, Any] = {}
        if wanted.tool_choice is not None:
            # Set on the agent, not the run, so that the Agents SDK resets the choice after the first call of the tool.
            changes["model_settings"] = replace(_settings_for(agent, wanted.model), tool_choice=wanted.tool_choice.id)
        if self.services.can_search and search_conversations.name not in {tool.name for tool in agent.tools}:
            changes["tools"] = [*agent.tools, search_conversations]
        if self.services.mcp is not None:
            return with_servers(agent, self.services.mcp.connected, {}, **changes)
        return agent.clone(**changes) if changes else agent

    async def start(self) -> None:
        if self.services.mcp is not None:
            self.services.mcp.start()

    async def close(self) -> None:
        if self.services.mcp is not None:
            await self.services.mcp.close()
        if self.models is not None:
            await self.models.aclose()


def _settings_for(agent: Agent[Any], model: str | None) -> ModelSettings:
    """The agent's settings, or the defaults of the chosen model if the agent has no settings of its own."""
    own = agent.model if isinstance(agent.model, str) else None
    is_implicit = model is not None and agent.model_settings == get_default_model_settings(own)
    return get_default_model_settings(model) if is_implicit else agent.model_settings


def history_converter(assistant: Assistant, context: AgentContext[RequestContext]) -> HistoryConverter:
    """With what the request knows of its history, and the assistant's way to resolve mentions."""
    notes = context.request_context.history_notes
    return HistoryConverter(
        resolve_tag=lambda tag: assistant.resolve_tag(tag, context),
        cut_short=notes.cut_short,
        without_images=notes.without_images,
        files=context.request_context.files,
        client_context=client_context_text(context.request_context),
    )
