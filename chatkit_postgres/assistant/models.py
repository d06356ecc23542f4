"""Configures the models of agents: providers, defaults of the Agents SDK, tracing and transcription."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents import (
    Agent,
    Model,
    ModelProvider,
    OpenAIProvider,
    RunConfig,
    Runner,
    set_default_openai_api,
    set_default_openai_client,
    set_tracing_disabled,
    set_tracing_export_api_key,
)
from agents.models import get_default_model
from agents.tracing import get_trace_provider
from agents.tracing.provider import DefaultTraceProvider
from openai import AsyncOpenAI, Timeout

from chatkit_postgres.assistant.agent_tracing import start_agent_spans
from chatkit_postgres.assistant.demo.model import SECONDS_PER_WORD, DemoModel
from chatkit_postgres.assistant.model_servers.guarded_models import (
    Guard,
    GuardedChatCompletionsModel,
    GuardedResponsesModel,
    goes_back,
)
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.model_servers.speech import Transcriber
from chatkit_postgres.assistant.model_servers.think_blocks import ThinkBlocks

CONNECT_SECONDS = 10

ModelApi = Literal["responses", "chat_completions"]


TRACE_SECONDS = 5


@dataclass(frozen=True)
class ModelOptions:
    """Without ``api_key`` and ``base_url``, the built-in demo model is used."""

    model: str | None = None
    api: ModelApi = "responses"
    api_key: str | None = None
    base_url: str | None = None
    allowed_models: frozenset[str] = frozenset()
    allowed_tools: frozenset[str] = frozenset()
    """The models and tools that a message may ask for."""
    transcription_model: str | None = None
    mcp_file: Path | None = None
    is_traced: bool = False
    tracing_key: str | None = None
    """The key for traces, which are sent to OpenAI; by default ``api_key``, if that is OpenAI's."""
    timeout_seconds: float = 120
    """Maximum time without data from the model server."""
    retries: int = 2
    think_blocks: ThinkBlocks = "thought"
    shows_tool_calls: bool = True
    can_search: bool = False
    remembers_tool_calls: bool = True
    is_hosted: bool = False
    """Whether the process belongs to a host, whose own runs must not be changed."""

    @property
    def is_demo(self) -> bool:
        return self.api_key is None and self.base_url is None


class DemoModels(ModelProvider):
    def __init__(self, seconds_per_word: float = SECONDS_PER_WORD) -> None:
        self._model = DemoModel(seconds_per_word)

    def get_model(self, model_name: str | None) -> Model:  # noqa: ARG002 - there is only one
        return self._model


class ConfiguredModels(OpenAIProvider):
    """CHAT_MODEL for agents that name no model of their own."""

    def __init__(self, options: ModelOptions, client: AsyncOpenAI) -> None:
        super().__init__(openai_client=client, use_responses=options.api == "responses")
        self.client = client
        self._api = options.api
        self._model_name = options.model
        self._guard = Guard(think_blocks=options.think_blocks)

    def get_model(self, model_name: str | None) -> Model:
        name = model_name or self._model_name
        if self._api == "chat_completions":
            return GuardedChatCompletionsModel(
                name or get_default_model(), self.client, should_replay_reasoning_content=goes_back, guard=self._guard
            )
        return GuardedResponsesModel(
            name or get_default_model(), self.client, model_is_explicit=name is not None, guard=self._guard
        )

    async def aclose(self) -> None:
        """Close the client, too: the SDK leaves it open, because others might use it."""
        await super().aclose()
        await self.client.close()


def configure_agents_sdk(options: ModelOptions, models: ModelProvider) -> None:
    """Set the SDK's defaults for every run of this process, before any agent is made. Otherwise the text of runs that
    guardrails, actions or titles start by themselves would be sent to OpenAI, as requests and as traces.

    The defaults include the model: an agent without a model takes settings (reasoning effort, verbosity) that fit the
    default model, and a server for another model may refuse these settings.
    """
    if options.model is not None:
        os.environ["OPENAI_DEFAULT_MODEL"] = options.model
    hands_on = start_agent_spans(beside_openai=options.is_traced)
    set_tracing_disabled(not (options.is_traced or hands_on))
    if isinstance(models, ConfiguredModels):
        set_default_openai_client(models.client, use_for_tracing=options.is_traced and options.base_url is None)
        set_default_openai_api(options.api)
    if options.is_traced and (options.tracing_key or options.base_url):
        # Otherwise the exporter would send OPENAI_API_KEY, which may be the key of another server.
        set_tracing_export_api_key(options.tracing_key or "none")


async def send_traces() -> None:
    """Send the traces that are queued, before the process ends."""
    provider = get_trace_provider()
    if isinstance(provider, DefaultTraceProvider):
        await asyncio.to_thread(provider.shutdown, TRACE_SECONDS)


def model_provider(options: ModelOptions) -> ModelProvider:
    return DemoModels() if options.is_demo else ConfiguredModels(options, _client(options))


async def one_word(models: ModelProvider) -> str:
    """Ask the configured model for one word, to see that it answers at all. Raises what the client raises."""
    agent = Agent[None](name="Check", instructions="Answer with one word.")
    run_config = RunConfig(model_provider=models, tracing_disabled=True)
    result = await Runner.run(agent, "Are you there?", run_config=run_config)
    return str(result.final_output)[:40]


def transcriber(options: ModelOptions) -> Transcriber | None:
    """None if no speech model is configured, or no model server."""
    if options.is_demo or options.transcription_model is None:
        return None
    return Transcriber(_client(options), options.transcription_model)


def _client(options: ModelOptions) -> AsyncOpenAI:
    # Local servers need no key, but the client requires one.
    return StreamingOpenAI(
        api_key=options.api_key or "none",
        base_url=options.base_url,
        timeout=Timeout(options.timeout_seconds, connect=CONNECT_SECONDS),
        max_retries=options.retries,
    )
