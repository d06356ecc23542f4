"""What can be configured: the environment, ``.env``, and ``[tool.chatkit-postgres]`` of ``pyproject.toml``, in this
order, read once, all problems reported together.

Only ``main``, ``wiring``, ``cli`` and ``migrations/env.py`` read settings; every other part is handed what it needs.
"""

import logging
import os
import re
from difflib import get_close_matches
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from chatkit_postgres.db.address import normalised_url
from chatkit_postgres.settings.addresses import is_loopback
from chatkit_postgres.settings.files import FileSettings
from chatkit_postgres.settings.identity import CURE, MIN_SECRET_BYTES, IdentitySettings
from chatkit_postgres.settings.lists import split

DEFAULT_ASSISTANT = "chatkit_postgres.assistant.default:build"

NOT_OURS = frozenset({"CHAT_BACKEND_URL", "CHAT_AGENTS_DIR"})
"""Variables in the same .env that the web app and compose read."""

__all__ = ["ConfigurationError", "Settings", "is_loopback", "load_settings", "unknown_settings", "variable_name"]


class ConfigurationError(Exception):
    """One line per problem: the setting's name, what is wrong, and the cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(IdentitySettings, FileSettings):
    model_config = SettingsConfigDict(
        env_prefix="CHAT_",
        env_file=".env",
        env_ignore_empty=True,
        pyproject_toml_table_header=("tool", "chatkit-postgres"),
        extra="ignore",
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - none of ours
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        in_project = PyprojectTomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, dotenv_settings, in_project

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="PostgreSQL to use; unset: an embedded one in CHAT_DATA_DIR, started by `serve`",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=500, description="connections per process; a turn holds none while a model talks"
    )
    data_dir: Path = Field(
        default=Path(".data"), description="the embedded cluster and the secret of development tokens"
    )
    postgres_bin: Path | None = Field(
        default=None, description="directory of the PostgreSQL programs for the embedded server"
    )

    model: str | None = Field(default=None, description="model name; unset: the Agents SDK's default")
    model_api: Literal["responses", "chat_completions"] = Field(
        default="responses", description="which API the model server speaks"
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
        default=120, gt=0, description="silence of the model server after which a call is given up"
    )
    model_retries: int = Field(
        default=2, ge=0, le=10, description="how often a call is repeated that failed before its answer began"
    )
    allowed_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="models that a message may choose, comma-separated"
    )
    allowed_tools: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="tools that a message may demand, comma-separated"
    )
    history_tokens: int = Field(
        default=32_000, ge=1000, description="token budget for history, estimated; newest items first"
    )
    think_blocks: Literal["thought", "drop", "text"] = Field(
        default="thought",
        description="<think> blocks at the head of an answer: `thought` shows, `drop` removes, `text` leaves them",
    )
    tracing: bool = Field(
        default=False,
        description="let the Agents SDK send its traces, which hold the conversations, to where it sends them",
    )
    tracing_key: SecretStr | None = Field(
        default=None,
        description="OpenAI's key for the traces; unset: OPENAI_API_KEY, unless OPENAI_BASE_URL names another server",
    )
    mcp_file: Path | None = Field(default=None, description="a file of MCP servers, whose tools are the agent's")
    assistant: str = Field(
        default=DEFAULT_ASSISTANT, description="import string of the agent, the assistant or the ChatKitServer to run"
    )
    context_headers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="request headers that an assistant may read, comma-separated, e.g. `X-Map-Id`"
    )

    transcription_model: str | None = Field(
        default=None, description="speech to text by the model server, e.g. `whisper-1`; unset: not offered"
    )
    max_audio_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, description="maximum size of a recording, in bytes")

    on_disconnect: Literal["stop", "finish"] = Field(
        default="stop", description="what a turn does when its last reader leaves"
    )
    turn_seconds: float = Field(default=600, gt=0, description="a turn that takes longer is ended, with what it has")
    turn_stale_seconds: float = Field(
        default=30,
        ge=1,
        description="a turn without a heartbeat for so long has lost its process; six heartbeats are sent in that time",
    )
    drain_seconds: float = Field(default=30, ge=0, description="time that running turns get to end after SIGTERM")
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, description="largest accepted chat request")
    body_seconds: float = Field(default=30, gt=0, description="maximum time for a request's body to arrive")
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=3600, description="how long `serve` keeps a connection without a request open"
    )
    max_header_bytes: int = Field(default=32 * 1024, ge=1024, le=1024 * 1024, description="largest accepted headers")
    max_json_depth: int = Field(default=32, ge=8, le=100, description="deepest accepted JSON")
    max_json_values: int = Field(default=10_000, ge=100, description="most values in one JSON document")
    max_message_characters: int = Field(default=32_000, ge=1, description="longest accepted message")
    max_metadata_characters: int = Field(
        default=4000, ge=0, description="longest `userInfo` and `pageContext` of a request, as JSON, together"
    )
    max_page_size: int = Field(default=100, ge=1, le=100, description="largest page of a list")
    max_answer_characters: int = Field(
        default=1_000_000, ge=1000, description="an answer that grows longer is ended there"
    )
    requests_per_minute: int = Field(default=300, ge=1, description="per user and process")
    turns_per_user: int = Field(default=20, ge=1, description="answers under way at once, per user and process")
    heartbeat_seconds: float = Field(default=15, gt=0, description="silence on a stream after which a comment is sent")
    log_level: str = Field(default="INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`")
    log_format: Literal["json", "console"] = Field(
        default="console", description="`json` for machines, `console` for people"
    )

    serve_host: str | None = Field(default=None, description="set by `serve` for its workers")
    embedded_url: SecretStr | None = Field(default=None, description="set by `serve` for its workers")

    @field_validator(
        "allowed_models",
        "allowed_tools",
        "context_headers",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split(value)

    @field_validator("openai_base_url")
    @classmethod
    def _has_scheme(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]", value):
            raise ValueError("use a URL like http://localhost:11434/v1")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            normalised_url(value.get_secret_value())
        return value

    @field_validator("log_level")
    @classmethod
    def _log_level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("assistant")
    @classmethod
    def _import_string(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("use package.module:attribute")
        return value

    @property
    def is_embedded(self) -> bool:
        return self.database_url is None

    @property
    def is_dev(self) -> bool:
        """Whether tokens are handed out to anybody who asks: only ever on one's own machine."""
        if self.auth_mode is not None:
            return self.auth_mode == "dev"
        has_key = self.uses_key_set or self.jwt_secret is not None or self.jwt_secret_file is not None
        return self.is_embedded and not has_key and is_loopback(self.serve_host)

    @property
    def uses_demo_model(self) -> bool:
        return self.openai_api_key is None and self.openai_base_url is None

    @property
    def link_key(self) -> str | None:
        """What signs addresses of files; in development mode a secret of its own is made."""
        return self.url_secret.get_secret_value() if self.url_secret is not None else self.jwt_key

    @property
    def dev_secret_file(self) -> Path:
        return self.data_dir / "dev-secret"

    def problems(self, *, verifies_tokens: bool = True) -> list[str]:
        """What is wrong with the settings taken together, for a server that listens on ``serve_host``;
        ``verifies_tokens`` is False where an application authenticates its users itself."""
        found: list[str] = []
        if self.auth_mode == "dev":
            if not self.is_embedded:
                found.append(
                    "CHAT_AUTH_MODE: dev hands tokens to anybody, so it works with the embedded database only. "
                    "Unset DATABASE_URL, or set CHAT_AUTH_MODE=jwt and CHAT_JWT_SECRET."
                )
            if not is_loopback(self.serve_host):
                found.append(
                    "CHAT_AUTH_MODE: dev hands tokens to anybody, so it works on a loopback address only. "
                    "Use --host 127.0.0.1, or set CHAT_AUTH_MODE=jwt and CHAT_JWT_SECRET."
                )
        elif not verifies_tokens:
            found += self._link_key_problems()
        elif not self.is_dev:
            found += self.key_problems() + (self._link_key_problems() if self.uses_key_set or self.jwt_key else [])
        if self.transcription_model is not None and self.uses_demo_model:
            found.append("CHAT_TRANSCRIPTION_MODEL: there is no server to ask; set OPENAI_API_KEY or OPENAI_BASE_URL.")
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            found.append("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: set both, or none of them.")
        if (
            verifies_tokens
            and self.auth_cookie is not None
            and not self.is_dev
            and "cors_origins" not in self.model_fields_set
        ):
            found.append(
                "CHAT_AUTH_COOKIE: a browser sends it for whichever page asks. Name the pages that may: "
                "CHAT_CORS_ORIGINS=https://chat.example.com"
            )
        return found

    def _link_key_problems(self) -> list[str]:
        if self.link_key is None:
            return [f"CHAT_URL_SECRET: signs addresses of files, and not set. {CURE}"]
        if self.url_secret is not None and len(self.link_key.encode()) < MIN_SECRET_BYTES:
            return [f"CHAT_URL_SECRET: shorter than {MIN_SECRET_BYTES} bytes. {CURE}"]
        return []


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, ``.env`` and ``pyproject.toml``. Raises ConfigurationError with every malformed value by
    name."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError([_problem(**detail) for detail in error.errors(include_input=False)]) from None
    except TOMLDecodeError as error:
        raise ConfigurationError([f"pyproject.toml: {error}."]) from None


def unknown_settings() -> list[str]:
    """A sentence for each variable of the environment, ``.env`` or ``pyproject.toml`` that looks like a setting and is
    none, with the nearest name that is one."""
    known = {variable_name(field) for field in Settings.model_fields} | NOT_OURS
    project = PyprojectTomlConfigSettingsSource(Settings)
    given = [name.upper() for name in (*os.environ, *dotenv_values(".env"))]
    given += [f"CHAT_{name.upper()}" for name in project() if variable_name(name) not in known]
    wrong = dict.fromkeys(name for name in given if name.startswith("CHAT_") and name not in known)
    return [f"{name}: there is no such setting.{_nearest(name, known)}" for name in wrong]


def _nearest(name: str, known: set[str]) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.75)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def variable_name(field: str) -> str:
    """The environment variable that sets a field."""
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"CHAT_{field.upper()}"


def _problem(*, loc: tuple[int | str, ...], msg: str, **_: Any) -> str:
    field = str(loc[0]).removeprefix("CHAT_").lower() if loc else ""
    name = variable_name(field) if field in Settings.model_fields else str(loc[0] if loc else "settings")
    return f"{name}: {msg.removeprefix('Value error, ')}."
