"""The answers of our own routes, as the OpenAPI document describes them. ChatKit's are those of the SDK."""

from datetime import datetime
from typing import Literal

from chatkit.types import FileAttachment, ImageAttachment
from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Every error."""

    code: str = Field(description="of docs/troubleshooting.md")
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


class WaitingThread(BaseModel):
    thread_id: str
    since: datetime


class WaitingThreads(BaseModel):
    data: list[WaitingThread]


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
