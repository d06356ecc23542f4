"""An ``agents.Agent`` as an assistant."""

from collections.abc import AsyncGenerator, Sequence

from agents import Agent, ModelProvider, RunConfig, Runner, Usage
from chatkit.agents import AgentContext, ThreadItemConverter, stream_agent_response
from chatkit.types import ThreadItem, ThreadStreamEvent

from app.assistant.base import Assistant
from app.assistant.converter import HistoryConverter
from app.context import RequestContext

MOST_MODEL_CALLS = 20


class AgentAssistant(Assistant):
    def __init__(
        self,
        agent: Agent[AgentContext[RequestContext]],
        models: ModelProvider,
        converter: ThreadItemConverter | None = None,
    ) -> None:
        self.agent = agent
        self.models = models
        self.converter = converter or HistoryConverter()

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        turn = context.request_context.turn
        if turn is not None:
            turn.sender_name = self.agent.name
        result = Runner.run_streamed(
            self.agent,
            await self.converter.to_agent_input(list(history)),
            context=context,
            max_turns=MOST_MODEL_CALLS,
            # Traces carry the conversation to a third party; nobody asked for that.
            run_config=RunConfig(model_provider=self.models, tracing_disabled=True),
        )
        try:
            async for event in stream_agent_response(context, result):
                yield event
        finally:
            if turn is not None:
                turn.usage = _tokens(result.context_wrapper.usage)
            # Ends the wait of the SDK's own queue, which a stopped turn leaves behind.
            context._complete()  # type: ignore[no-untyped-call] # noqa: SLF001 - see docs/decisions/0006
            # Without it the model's stream runs on after the turn was stopped.
            result.cancel()

    async def close(self) -> None:
        await self.models.aclose()


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.input_tokens_details.cached_tokens or 0,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.output_tokens_details.reasoning_tokens or 0,
    }
