"""Answers with an exported workflow: its runs are given the thread's history, and what their agents say is streamed.

An export calls ``Runner.run`` for each node, with the user's message as the only history. Those calls are taken over
(``FollowedRuns.take_over``), so that the export stays as it is.
"""

import asyncio
import inspect
import json
import typing
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, cast

from agents import Agent, ModelProvider, Runner, RunResult, RunResultStreaming, TResponseInputItem
from chatkit.agents import AgentContext, stream_agent_response
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadStreamEvent,
    UserMessageItem,
)
from pydantic import BaseModel

from chatkit_postgres.assistant.agent import history_converter
from chatkit_postgres.assistant.agent_builder.state import WorkflowState, current_state, with_kept_state
from chatkit_postgres.assistant.base import NO_SERVICES, Assistant, Choices, Services
from chatkit_postgres.assistant.images import stored_images
from chatkit_postgres.assistant.runs import FollowedRuns, followed_runs
from chatkit_postgres.assistant.silence import reason_of, shows
from chatkit_postgres.assistant.tools.client_tools import with_all_calls
from chatkit_postgres.assistant.user_errors import user_facing_errors
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import InternalError
from chatkit_postgres.observability.logs import get_logger

INPUT = "input_as_text"
"""The field of a workflow's input."""

logger = get_logger(__name__)

_is_inside: ContextVar[bool] = ContextVar("inside_of_a_run", default=False)
"""Whether a run was started by a tool of another one, which is no node of the workflow."""


def is_workflow(found: object) -> bool:
    """Whether it is a coroutine function whose one parameter is a model with ``input_as_text``, as in an export."""
    return inspect.iscoroutinefunction(found) and _input_of(found) is not None


class WorkflowAssistant(Assistant):
    """What agents without an ``output_type`` say is shown as it is made; if there is no such text, the result of the
    workflow is."""

    def __init__(self, run_workflow: Any) -> None:
        """Raises TypeError if its input has required fields that nobody fills."""
        given = _input_of(run_workflow)
        if given is None:
            raise TypeError(f"it takes no input with the field {INPUT}")
        unknown = [name for name, info in given.model_fields.items() if info.is_required() and name != INPUT]
        if unknown:
            raise TypeError(
                f"its input requires {', '.join(unknown)}, but only {INPUT} is passed; give the others defaults"
            )
        self._input = given
        self._workflow = with_kept_state(run_workflow)
        self._models: ModelProvider | None = None

    def prepare(self, models: ModelProvider, choices: Choices, services: Services = NO_SERVICES) -> None:
        super().prepare(models, choices, services)
        self._models = models

    def runs_of(self, request: RequestContext) -> FollowedRuns:
        return FollowedRuns(
            self._models, request, counted=request.session is not None, is_traced=self.services.is_traced
        )

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        place = max((at for at, item in enumerate(history) if isinstance(item, UserMessageItem)), default=None)
        if place is None:
            raise InternalError
        converter = history_converter(self, context)
        before = await converter.to_agent_input(list(history[:place])) if place else []
        answered = await converter.to_agent_input(list(history[place:]))
        text = _text_of(history[place])
        session = context.request_context.session
        is_retry = session is not None and session.retry is not None
        state = WorkflowState(context.thread, history[place].id, is_retry=is_retry)
        del history
        nodes = _Nodes(before, answered, text, context)
        runs = followed_runs()
        if runs is not None:
            runs.take_over = nodes.run
        token = current_state.set(state)
        running = asyncio.create_task(self._run(text, nodes))
        current_state.reset(token)
        try:
            is_silent = True
            with user_facing_errors():
                while (event := await nodes.events.get()) is not None:
                    is_silent = is_silent and not shows(event)
                    yield event
                words = _words_of(await running)
            if is_silent and not words:
                raise reason_of(*(runs.hooks if runs is not None else ()))
            state.save(context.thread)
            for removed in nodes.given_up():
                yield removed
            if is_silent:
                if session is not None:
                    # No agent has said this.
                    session.sender_name = None
                yield ThreadItemDoneEvent(item=_message(words, context))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self, text: str, nodes: "_Nodes") -> Any:
        try:
            return await self._workflow(self._input(**{INPUT: text}))
        finally:
            nodes.events.put_nowait(None)


class _Nodes:
    """The runs of one call of a workflow."""

    def __init__(
        self,
        before: Sequence[TResponseInputItem],
        answered: Sequence[TResponseInputItem],
        text: str,
        context: AgentContext[RequestContext],
    ) -> None:
        self.events: asyncio.Queue[ThreadStreamEvent | None] = asyncio.Queue()
        """None at the end."""
        self._before = before
        self._answered = answered
        self._text = text
        self._context = context
        self._unfinished: list[str] = []
        """Ids of items of nodes that failed."""

    def given_up(self) -> list[ThreadItemRemovedEvent]:
        """For the items of nodes whose failure the workflow has survived. If it has not, they are kept as they are."""
        given_up, self._unfinished = self._unfinished, []
        return [ThreadItemRemovedEvent(item_id=item_id) for item_id in given_up]

    async def run(self, agent: Agent[Any], given: Any, options: dict[str, Any]) -> RunResult | None:
        """In place of ``Runner.run``. None for a run that is no node."""
        if _is_inside.get():
            return None
        for removed in self.given_up():
            self.events.put_nowait(removed)
        token = _is_inside.set(True)
        try:
            # Its task inherits the mark.
            result = Runner.run_streamed(agent, self._with_history(given), **options)
        finally:
            _is_inside.reset(token)
        if agent.output_type is None or agent.output_type is str:
            await self._show(agent, result)
        else:
            async for _ in result.stream_events():
                pass
        if result.interruptions:
            names = [str(interruption.tool_name) for interruption in result.interruptions]
            logger.error("workflow_cannot_ask", tools=names, cure="AgentAssistant asks for approvals: docs/tools.md")
            raise InternalError
        # It has what an export reads: the items, and the final output.
        return cast(RunResult, result)

    async def _show(self, agent: Agent[Any], result: RunResultStreaming) -> None:
        context = self._context
        running = with_all_calls(
            AgentContext[Any](thread=context.thread, store=context.store, request_context=context.request_context)
        )
        added: dict[str, None] = {}
        try:
            async for event in stream_agent_response(running, result, converter=stored_images(agent, context)):
                match event:
                    case ThreadItemAddedEvent(item=item):
                        added[item.id] = None
                    case ThreadItemDoneEvent(item=item):
                        added.pop(item.id, None)
                self.events.put_nowait(event)
        except Exception:
            self._unfinished += added
            raise

    def _with_history(self, given: Any) -> Any:
        """A node that is given the user's message is given what came before, and the message with its files."""
        if given == self._text:
            return [*self._before, *self._answered]
        if not isinstance(given, list) or not given or not self._is_message(given[0]):
            return given
        if self._before and given[: len(self._before)] == list(self._before):
            # The input of another node, which has it already.
            return given
        return [*self._before, *self._answered, *given[1:]]

    def _is_message(self, first: Any) -> bool:
        content = first.get("content") if isinstance(first, dict) and first.get("role") == "user" else None
        parts = [{"text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            return False
        return [part.get("text") for part in parts if isinstance(part, dict)] == [self._text]


def _input_of(found: Any) -> type[BaseModel] | None:
    try:
        parameters = list(inspect.signature(found).parameters.values())
        hints = typing.get_type_hints(found)
    except (TypeError, ValueError, NameError):
        return None
    wanted = [parameter for parameter in parameters if parameter.default is parameter.empty]
    hint = hints.get(wanted[0].name) if len(wanted) == 1 else None
    is_model = isinstance(hint, type) and issubclass(hint, BaseModel) and INPUT in hint.model_fields
    return hint if is_model else None


def _text_of(item: ThreadItem) -> str:
    return "".join(part.text for part in item.content) if isinstance(item, UserMessageItem) else ""


def _words_of(result: Any) -> str:
    """What a workflow returns, for a person: its text, or JSON."""
    if isinstance(result, BaseModel):
        result = result.model_dump(mode="json")
    if isinstance(result, dict) and isinstance(text := result.get("output_text"), str):
        result = text
    if result is None or isinstance(result, str):
        return result or ""
    return f"```json\n{json.dumps(result, indent=2, ensure_ascii=False, default=str)}\n```"


def _message(text: str, context: AgentContext[RequestContext]) -> AssistantMessageItem:
    return AssistantMessageItem(
        id=context.generate_id("message"),
        thread_id=context.thread.id,
        created_at=datetime.now(),  # noqa: DTZ005 - as the SDK does
        content=[AssistantMessageContent(text=text)],
    )
