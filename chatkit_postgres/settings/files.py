"""What can be configured about files: addresses, storage, limits."""

import re
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from chatkit_postgres.settings.lists import split

DEFAULT_ATTACHMENT_TYPES = (
    *("image/png", "image/jpeg", "image/gif", "image/webp"),
    *("text/plain", "text/markdown", "text/csv", "application/json", "application/pdf"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
)


class FileSettings(BaseSettings):
    public_url: str | None = Field(
        default=None, description="how browsers reach this server, for addresses of files; unset: as the request says"
    )
    url_secret: SecretStr | None = Field(
        default=None, description="signs addresses of files, at least 32 bytes; unset: derived from CHAT_JWT_SECRET"
    )
    storage_url: str | None = Field(
        default=None,
        description="`s3://bucket/prefix` for the bytes of attachments; unset: a directory in CHAT_DATA_DIR",
    )
    aws_endpoint_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AWS_ENDPOINT_URL", "aws_endpoint_url"),
        description="an S3-compatible server other than Amazon's",
    )
    aws_region: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_REGION", "aws_region"), description="of the bucket"
    )
    aws_access_key_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
        description="unset: the identity of the pod or the machine",
    )
    aws_secret_access_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
        description="the secret of AWS_ACCESS_KEY_ID",
    )
    aws_session_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("AWS_SESSION_TOKEN", "aws_session_token"),
        description="of a temporary AWS_ACCESS_KEY_ID",
    )
    direct_downloads: bool = Field(
        default=False,
        description="send browsers to the bucket for contents, by presigned addresses; previews still come from here",
    )
    link_seconds: int = Field(
        default=3600, ge=60, le=7 * 24 * 3600, description="lifetime of a signed file URL, in seconds"
    )
    attachment_types: Annotated[tuple[str, ...], NoDecode] = Field(
        default=DEFAULT_ATTACHMENT_TYPES, description="media types that are taken, comma-separated, or `none`"
    )
    max_attachment_bytes: int = Field(default=20 * 1024 * 1024, ge=1, description="largest file")
    max_image_pixels: int = Field(default=40_000_000, ge=1, description="largest image")
    max_attachments_per_message: int = Field(default=10, ge=1, le=100, description="files sent with one message")
    max_unsent_attachments: int = Field(default=50, ge=1, description="files of one user that were not sent yet")
    upload_seconds: float = Field(default=300, gt=0, le=1800, description="maximum upload time, in seconds")
    file_tokens: int = Field(
        default=16_000,
        ge=0,
        description="token budget for attached texts in one call, estimated; newest files first",
    )
    model_images: int = Field(
        default=8, ge=0, le=100, description="how many images the model sees in one call; the newest"
    )

    @field_validator("attachment_types", mode="before")
    @classmethod
    def _split_types(cls, value: Any) -> Any:
        return split(value)

    @field_validator("attachment_types")
    @classmethod
    def _media_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value == ("none",):
            return ()
        for pattern in value:
            if not re.fullmatch(r"(\*/\*|[\w.+-]+/(\*|[\w.+-]+))", pattern):
                raise ValueError(f"{pattern!r} is not a media type like image/png or text/*")
        return value

    @field_validator("public_url", "aws_endpoint_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("use an address like https://chat.example.com")
        return value.rstrip("/")

    @field_validator("storage_url")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9._-]+(/[\w./-]*)?", value):
            raise ValueError("use s3://bucket or s3://bucket/prefix")
        return value
