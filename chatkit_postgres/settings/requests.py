"""Settings of requests and of the log."""

import logging
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from chatkit_postgres.api.chatkit import EdgeLimits


class RequestSettings(BaseSettings):
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, description="maximum size of a chat request, in bytes")
    body_seconds: float = Field(default=30, gt=0, description="maximum time for a request's body to arrive")
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=3600, description="seconds for which `serve` keeps an idle connection open"
    )
    max_header_bytes: int = Field(
        default=32 * 1024, ge=1024, le=1024 * 1024, description="maximum size of the headers, in bytes"
    )
    max_json_depth: int = Field(default=32, ge=8, le=100, description="maximum depth of a JSON document")
    max_json_values: int = Field(default=10_000, ge=100, description="maximum number of values in a JSON document")
    max_message_characters: int = Field(default=32_000, ge=1, description="maximum length of a message, in characters")
    max_metadata_characters: int = Field(
        default=4000,
        ge=0,
        description="maximum length of `userInfo` and `pageContext` together, as JSON, in characters",
    )
    max_page_size: int = Field(default=100, ge=1, le=100, description="maximum page size of a list")
    api_docs: bool = Field(default=False, description="serve `/openapi.json`; in development mode it is always served")
    heartbeat_seconds: float = Field(
        default=15, gt=0, description="seconds without an event after which a comment is sent on a stream"
    )
    log_level: str = Field(default="INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`")
    log_format: Literal["json", "console"] = Field(
        default="console", description="`json` for machines, `console` for people"
    )

    @field_validator("log_level")
    @classmethod
    def _log_level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    def edge_limits(self, *, max_attachments: int, max_audio_bytes: int | None) -> "EdgeLimits":
        """``max_audio_bytes`` is None where no speech is transcribed."""
        from chatkit_postgres.api.body import BodyLimits
        from chatkit_postgres.api.chatkit import EdgeLimits
        from chatkit_postgres.chat.requests import RequestLimits

        max_bytes = self.max_body_bytes
        if max_audio_bytes is not None:
            # In base64, with the rest of the request.
            max_bytes = max(max_bytes, max_audio_bytes * 4 // 3 + 4096)
        return EdgeLimits(
            body=BodyLimits(max_bytes=max_bytes, seconds=self.body_seconds),
            request=RequestLimits(
                bytes=self.max_body_bytes,
                attachments=max_attachments,
                metadata_characters=self.max_metadata_characters,
                depth=self.max_json_depth,
                values=self.max_json_values,
                message_characters=self.max_message_characters,
                page=self.max_page_size,
            ),
            heartbeat_seconds=self.heartbeat_seconds,
        )
