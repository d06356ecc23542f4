"""Settings of the assistant and its models."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from chatkit_postgres.settings.lists import split
from chatkit_postgres.text import header_fault

if TYPE_CHECKING:
    from chatkit_postgres.assistant.models import ModelOptions
    from chatkit_postgres.store.history import HistoryLimits

DEFAULT_ASSISTANT = "chatkit_postgres.assistant.default:build"


class ModelSettings(BaseSettings):
    model: str | None = Field(default=None, description="model name; unset: the Agents SDK's default")
    model_api: Literal["responses", "chat_completions"] = Field(
        default="responses", description="API of the model server"
    )
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="unset, and no OPENAI_BASE_URL: the built-in demo model, no network",
    )
    openai_base_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url"),
        description="an OpenAI-compatible server, e.g. `http://localhost:11434/v1`",
    )
    model_timeout_seconds: float = Field(
        default=120, gt=0, description="seconds without data after which a model call fails"
    )
    model_retries: int = Field(
        default=2, ge=0, le=10, description="retries of a call that failed before its answer began"
    )
    allowed_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="models that a message may select, comma-separated"
    )
    allowed_tools: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="tools that a message may require, comma-separated"
    )
    history_tokens: int = Field(
        default=32_000, ge=1000, description="token budget for history, estimated; newest items first"
    )
    tool_memory_tokens: int = Field(
        default=8000,
        ge=0,
        description="token budget for what tools said in earlier turns, estimated; newest first; 0: none",
    )
    show_tool_calls: bool = Field(default=True, description="show each call of a tool as a task while it runs")
    search_tool: bool = Field(
        default=False, description="give the agent a tool that searches the user's other conversations"
    )
    think_blocks: Literal["thought", "drop", "text"] = Field(
        default="thought",
        description="<think> blocks at the head of an answer: `thought` shows, `drop` removes, `text` leaves them",
    )
    tracing: bool = Field(
        default=False,
        description="export the Agents SDK's traces, which contain the conversations",
    )
    trace_content: bool = Field(
        default=False, description="put what users, models and tools say into the spans of OpenTelemetry"
    )
    trace_statement_seconds: float = Field(
        default=0.02, ge=0, le=60, description="statements that take at least as long are spans; 0: all are"
    )
    traces_per_second: float = Field(
        default=2.0, ge=0, le=10_000, description="traces that a process begins in a second at most; 0: all"
    )
    tracing_key: SecretStr | None = Field(
        default=None,
        description="OpenAI's key for the traces; unset: OPENAI_API_KEY, unless OPENAI_BASE_URL names another server",
    )
    mcp_file: Path | None = Field(default=None, description="file of MCP servers, whose tools are added to the agent's")
    assistant: str = Field(
        default=DEFAULT_ASSISTANT, description="import string of the agent, the assistant or the ChatKitServer to run"
    )
    assistant_name: str | None = Field(
        default=None, min_length=1, max_length=100, description="what front ends call it; unset: the agent's name"
    )
    context_headers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="request headers that an assistant may read, comma-separated, e.g. `X-Map-Id`"
    )
    transcription_model: str | None = Field(
        default=None, description="speech to text by the model server, e.g. `whisper-1`; unset: not offered"
    )
    max_audio_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, description="maximum size of a recording, in bytes")

    @field_validator("allowed_models", "allowed_tools", "context_headers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split(value)

    @field_validator("openai_api_key", "tracing_key")
    @classmethod
    def _fits_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (fault := header_fault(value.get_secret_value())) is not None:
            raise ValueError(f"this cannot be a key: {fault}")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _has_scheme(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]", value):
            raise ValueError("use a URL like http://localhost:11434/v1")
        return value

    @field_validator("assistant")
    @classmethod
    def _import_string(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("use package.module:attribute")
        return value

    @property
    def uses_demo_model(self) -> bool:
        return self.openai_api_key is None and self.openai_base_url is None

    def model_problems(self) -> list[str]:
        if self.transcription_model is not None and self.uses_demo_model:
            return ["CHAT_TRANSCRIPTION_MODEL: there is no server to ask; set OPENAI_API_KEY or OPENAI_BASE_URL."]
        return []

    def model_options(self, *, is_hosted: bool = False) -> "ModelOptions":
        """``is_hosted``: the process is another application's."""
        from chatkit_postgres.assistant.models import ModelOptions

        key, tracing_key = self.openai_api_key, self.tracing_key
        return ModelOptions(
            model=self.model,
            api=self.model_api,
            api_key=key.get_secret_value() if key is not None else None,
            base_url=self.openai_base_url,
            allowed_models=frozenset(self.allowed_models),
            allowed_tools=frozenset(self.allowed_tools),
            transcription_model=self.transcription_model,
            mcp_file=self.mcp_file,
            is_traced=self.tracing,
            tracing_key=tracing_key.get_secret_value() if tracing_key is not None else None,
            timeout_seconds=self.model_timeout_seconds,
            retries=self.model_retries,
            think_blocks=self.think_blocks,
            shows_tool_calls=self.show_tool_calls,
            can_search=self.search_tool,
            remembers_tool_calls=self.tool_memory_tokens > 0,
            is_hosted=is_hosted,
        )

    def history_limits(self) -> "HistoryLimits":
        from chatkit_postgres.chat.history import limits_of

        return limits_of(self.history_tokens, self.tool_memory_tokens)
