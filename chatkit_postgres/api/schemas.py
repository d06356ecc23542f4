"""The answers of our own routes, as the OpenAPI document describes them. ChatKit's are those of the SDK."""

from datetime import datetime
from typing import Literal

from chatkit.types import FileAttachment, ImageAttachment
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Problem(BaseModel):
    """Every error."""

    code: str = Field(description="of docs/errors.md")
    message: str = Field(description="for the user")
    request_id: str = Field(description="as in the header X-Request-ID and in the log")


class SearchHit(BaseModel):
    thread_id: str
    item_id: str | None = Field(description="null: the title matches")
    title: str | None
    snippet: str = Field(description="HTML; what matches is in `<mark>`, its only element")
    created_at: datetime


class SearchPage(BaseModel):
    data: list[SearchHit] = Field(description="the newest first")
    has_more: bool
    after: str | None = Field(description="of the next page")


class UsageCounts(BaseModel):
    turns: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class UsageDay(UsageCounts):
    date: str = Field(description="in UTC, YYYY-MM-DD")


class Budget(BaseModel):
    """The tokens of today, input and output together."""

    tokens_per_day: int
    spent: int = Field(description="by turns that have ended")
    held: int = Field(description="for turns that run")
    left: int = Field(description="for further turns")
    renewed_at: str = Field(description="when the next day begins, in UTC", examples=["2030-01-01T00:00:00Z"])


class UsageReport(BaseModel):
    days: list[UsageDay] = Field(description="those with turns, the oldest first")
    total: UsageCounts
    budget: Budget | None = Field(description="null: the user's tokens are not limited")


class ThreadSince(BaseModel):
    thread_id: str
    since: datetime


class ThreadsSince(BaseModel):
    data: list[ThreadSince] = Field(description="at most 1,000, the newest first")


class Stopped(BaseModel):
    stopped: bool = Field(description="whether a turn was running")


class FileDescription(FileAttachment):
    download_url: str | None = Field(default=None, description="signed; once the bytes are stored")


class ImageDescription(ImageAttachment):
    download_url: str | None = Field(default=None, description="signed; once the bytes are stored")


class Alive(BaseModel):
    status: Literal["ok"]


class Revisions(BaseModel):
    seen: str | None
    wanted: str


class Readiness(BaseModel):
    status: Literal["ok", "draining", "full", "unavailable"]
    database: Literal["ok", "unreachable"]
    keys: Literal["ok", "unknown"]
    lifespan: Literal["ok", "not_started"]
    revision: Revisions


class ChatKitOptions(BaseModel):
    """Part of the options of ChatKit's component, with their names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class AttachmentOptions(ChatKitOptions):
    enabled: bool
    max_size: int = Field(description="of a file, in bytes")
    max_count: int = Field(description="of files in a message")
    accept: dict[str, list[str]] = Field(description="extensions by media type")


class ModelChoice(ChatKitOptions):
    id: str
    label: str
    default: bool


class ToolChoice(ChatKitOptions):
    id: str
    label: str
    icon: str = Field(description="one of ChatKit's, which demands one")


class DictationOptions(ChatKitOptions):
    enabled: bool


class ComposerOptions(ChatKitOptions):
    attachments: AttachmentOptions
    models: list[ModelChoice] = Field(description="that a message may choose: CHAT_ALLOWED_MODELS")
    tools: list[ToolChoice] = Field(description="that a message may demand: CHAT_ALLOWED_TOOLS, and the assistant's")
    dictation: DictationOptions


class Prompt(ChatKitOptions):
    label: str
    prompt: str


class StartScreen(ChatKitOptions):
    prompts: list[Prompt] = Field(description="of the assistant that answers")


class ClientConfig(ChatKitOptions):
    """What the server allows. ``composer`` and ``startScreen`` can be given to ChatKit's component as they are."""

    name: str = Field(description="of the assistant: CHAT_ASSISTANT_NAME, else the agent's, else Assistant")
    composer: ComposerOptions
    start_screen: StartScreen
