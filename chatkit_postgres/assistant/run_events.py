"""The events of an agent's run, on their way to the Agents SDK's conversion to thread events."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agents import Agent, RunResultStreaming, StreamEvent
from chatkit.agents import ClientToolCall
from chatkit.types import AssistantMessageContentPartTextDelta, ThreadItemUpdatedEvent

from chatkit_postgres.assistant.base import SendDelta
from chatkit_postgres.assistant.model_input.tool_memory import ToolMemory
from chatkit_postgres.assistant.tools.client_tools import AllCalls
from chatkit_postgres.store.session import WriteSession


class RunEvents:
    """Wraps a run's event stream: sends text deltas directly, because the SDK makes a task for each event, records the
    current agent, and has what tools say remembered. While events of tools are queued in the SDK, deltas take the SDK's
    path, so that text cannot overtake these events."""

    def __init__(
        self,
        run: RunResultStreaming,
        session: WriteSession | None,
        context: AllCalls,
        send_delta: SendDelta | None,
        memory: ToolMemory,
    ) -> None:
        self._run = run
        self._context = context
        self._session = session
        self._streamed = context._events  # noqa: SLF001 - see docs/decisions/0006
        self._send_delta = send_delta
        self._memory = memory
        # Not a set, which takes 200 bytes while it is empty.
        self._begun: frozenset[str] = frozenset()
        """Ids of messages whose first visible text has taken the SDK's path."""
        self.client_calls: Sequence[ClientToolCall] = ()
        """Calls of client tools by a run that waits for approvals."""
        self._set_current_agent(run.current_agent)

    async def stream_events(self) -> AsyncGenerator[StreamEvent, None]:
        async for event in self._run.stream_events():
            if event.type == "agent_updated_stream_event":
                self._set_current_agent(event.new_agent)
            if self._memory.note(event):
                await self._memory.save(without=self._client_tools())
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
        await self._memory.save(without=self._client_tools())
        if self._run.interruptions:
            # The page is asked when the run has gone on: its output would begin another one.
            self.client_calls = self._context.take_calls()

    def _client_tools(self) -> set[str]:
        """The names of the tools that have asked the page to do something, after which the run has stopped."""
        asked = self._context.client_tools
        behaviour = self._run.last_agent.tool_use_behavior
        stops = behaviour.get("stop_at_tool_names", []) if asked and isinstance(behaviour, dict) else []
        return {*asked, *stops}

    def _set_current_agent(self, agent: Agent[Any]) -> None:
        if self._session is not None:
            self._session.sender_name = agent.name
            # The guardrails of the agent that ends the run judge its answer.
            self._session.awaits_verdict = bool(agent.output_guardrails)
