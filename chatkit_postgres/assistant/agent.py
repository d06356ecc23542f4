"""Runs an ``agents.Agent`` as an assistant."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

from agents import (
    Agent,
    ModelProvider,
    ModelSettings,
    RunConfig,
    Runner,
    RunResultStreaming,
    StreamEvent,
)
from agents.mcp import MCPServer
from agents.models import get_default_model_settings
from chatkit.agents import AgentContext, ResponseStreamConverter, ThreadItemConverter, stream_agent_response
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    InferenceOptions,
    ProgressUpdateEvent,
    ThreadItem,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant.actions import RegisteredAction, rules_of
from chatkit_postgres.assistant.base import NO_SERVICES, Assistant, Choices, SendDelta, Services
from chatkit_postgres.assistant.client_tools import with_all_calls
from chatkit_postgres.assistant.converter import HistoryConverter
from chatkit_postgres.assistant.guardrails import refusal_as_answer
from chatkit_postgres.assistant.handoffs import find_agent
from chatkit_postgres.assistant.images import StoredImages, partial_images_of
from chatkit_postgres.assistant.mcp_servers import watcher
from chatkit_postgres.assistant.runs import FollowedRuns
from chatkit_postgres.assistant.silence import without_empty_messages
from chatkit_postgres.assistant.turn_hooks import TurnHooks
from chatkit_postgres.assistant.usage import failed_usage, token_counts
from chatkit_postgres.assistant.user_errors import user_facing_errors
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import get_logger
from chatkit_postgres.store.session import WriteSession

MAX_MODEL_CALLS = 20

logger = get_logger(__name__)


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
        self.default_agent = agent
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

    def missing_tools(self, names: Sequence[str]) -> list[str]:
        """The names that are no tools of the default agent, with which a run starts. Empty if there are MCP servers,
        because their tools are known only while a server is connected."""
        if self.services.mcp is not None or self.default_agent.mcp_servers:
            return []
        known = {tool.name for tool in self.default_agent.tools} | self.own_tool_choices
        return [name for name in names if name not in known]

    def converter(self, context: AgentContext[RequestContext]) -> ThreadItemConverter:
        """The converter from thread items to model input."""
        if self._converter is not None:
            return self._converter
        notes = context.request_context.history_notes
        return HistoryConverter(
            resolve_tag=lambda tag: self.resolve_tag(tag, context),
            cut_short=notes.cut_short,
            without_images=notes.without_images,
            files=context.request_context.files,
            client_context=client_context_text(context.request_context),
        )

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
        wanted = self._wanted(history)
        agent = await self.agent(history, context)
        if self._remembers_agent and (last := request.history_notes.last_agent) is not None:
            agent = find_agent(agent, last) or agent
        # The run has its own context, from which the SDK reads the events of tools and the open workflow.
        running = with_all_calls(await self.agent_context(context))
        # Instead of its own, which is not used: what is streamed through the outer context is sent at once.
        context._events = running._events  # noqa: SLF001 - see docs/decisions/0006
        hooks = TurnHooks()
        watcher.set(hooks)
        spent = Counter[str]()
        failed_usage.set(spent)
        # Traces send the conversation to a third party, so they are off unless configured.
        run_config = RunConfig(
            model=wanted.model, tracing_disabled=not self.services.is_traced, tool_error_formatter=hooks.on_tool_error
        )
        if self.models is not None:
            run_config.model_provider = self.models
        model_input = await self.converter(context).to_agent_input(list(history))
        # Not kept in memory while the answer streams.
        del history
        result = Runner.run_streamed(
            self._equipped(agent, wanted),
            model_input,
            context=running,
            max_turns=MAX_MODEL_CALLS,
            run_config=run_config,
            error_handlers={"model_refusal": refusal_as_answer},
            hooks=hooks,
        )
        try:
            intercepted: Any = _TextInterceptor(result, request.session, running, send_delta)
            events = stream_agent_response(running, intercepted, converter=_images(agent, context))
            with user_facing_errors():
                async for event in without_empty_messages(events):
                    yield await running.first_call(event)
        finally:
            spent.update(token_counts(result.context_wrapper.usage))
            request.outcome.usage = dict(spent)
            # After a stopped turn, a task of the SDK still waits for a tool's event; any event ends that wait.
            await running.stream(ProgressUpdateEvent(text=""))
            # Otherwise the model's stream continues after the turn was stopped.
            result.cancel()

    def _wanted(self, history: Sequence[ThreadItem]) -> InferenceOptions:
        """The model and the tool that the newest message asks for, if they are still allowed. The tool is demanded
        once, and not again after the output of a client tool or answered questions."""
        newest = next((item for item in reversed(history) if isinstance(item, UserMessageItem)), None)
        if newest is None:
            return InferenceOptions()
        model, tool = newest.inference_options.model, newest.inference_options.tool_choice
        is_asked = tool is not None and tool.id in self.choices.tools - self.own_tool_choices and history[-1] is newest
        return InferenceOptions(
            model=model if model in self.choices.models else None, tool_choice=tool if is_asked else None
        )

    def _equipped(self, agent: Agent[Any], wanted: InferenceOptions) -> Agent[Any]:
        """The agent with the tool choice of the message, and with the tools of connected MCP servers."""
        changes: dict[str, Any] = {}
        if wanted.tool_choice is not None:
            # Set on the agent, not the run, so that the Agents SDK resets the choice after the first call of the tool.
            changes["model_settings"] = replace(_settings_for(agent, wanted.model), tool_choice=wanted.tool_choice.id)
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


def _images(agent: Agent[Any], context: AgentContext[RequestContext]) -> ResponseStreamConverter:
    files = context.request_context.files
    if files is None:
        return ResponseStreamConverter()
    return StoredImages(files, partial_images=partial_images_of(agent))


class _TextInterceptor:
    """Wraps a run's event stream: sends text deltas directly, because the SDK makes a task for each event, and records
    the current agent. While events of tools are queued in the SDK, deltas take the SDK's path, so that text cannot
    overtake these events."""

    def __init__(
        self,
        run: RunResultStreaming,
        session: WriteSession | None,
        context: AgentContext[Any],
        send_delta: SendDelta | None,
    ) -> None:
        self._run = run
        self._session = session
        self._streamed = context._events  # noqa: SLF001 - see docs/decisions/0006
        self._send_delta = send_delta
        # Not a set, which takes 200 bytes while it is empty.
        self._begun: frozenset[str] = frozenset()
        """Ids of messages whose first visible text has taken the SDK's path."""
        self._set_current_agent(run.current_agent)

    async def stream_events(self) -> AsyncGenerator[StreamEvent, None]:
        async for event in self._run.stream_events():
            if event.type == "agent_updated_stream_event":
                self._set_current_agent(event.new_agent)
            data = event.data if event.type == "raw_response_event" and self._streamed.empty() else None
            if self._send_delta is None or data is None or data.type != "response.output_text.delta":
                yield event
            elif data.item_id not in self._begun:
                # A message's first visible text takes the SDK's path, because without_empty_messages holds the
                # message's announcement until then.
                if data.delta.strip():
                    self._begun |= {data.item_id}
                yield event
            else:
                update = AssistantMessageContentPartTextDelta(content_index=data.content_index, delta=data.delta)
                await self._send_delta(ThreadItemUpdatedEvent(item_id=data.item_id, update=update))

    def _set_current_agent(self, agent: Agent[Any]) -> None:
        if self._session is not None:
            self._session.sender_name = agent.name
            # The guardrails of the agent that ends the run judge its answer.
            self._session.awaits_verdict = bool(agent.output_guardrails)


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


def client_context_text(context: RequestContext) -> str:
    """The model input about the language, the user and the page, as a message of the user, not as instructions."""
    facts = {"language": context.locale} if context.locale else {}
    facts |= context.client_context
    if not facts:
        return ""
    about = json.dumps(facts, ensure_ascii=False)
    return f"The user's application says this about the user and the page they look at. It is information: {about}"
