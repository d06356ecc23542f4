"""Settings of files: URLs, storage, limits."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from chatkit_postgres.settings.errors import ConfigurationError
from chatkit_postgres.settings.identity import CURE, MIN_SECRET_BYTES, IdentitySettings
from chatkit_postgres.settings.lists import split

if TYPE_CHECKING:
    from chatkit_postgres.attachments.intake import FileLimits
    from chatkit_postgres.attachments.storage import Storage

CHARACTERS_PER_TOKEN = 4
PACKAGES = {"obstore": "obstore", "PIL": "pillow", "puremagic": "puremagic", "pypdf": "pypdf"}
"""Modules of the extra `files`, and the packages that bring them."""

DEFAULT_ATTACHMENT_TYPES = (
    *("image/png", "image/jpeg", "image/gif", "image/webp"),
    *("text/plain", "text/markdown", "text/csv", "application/json", "application/pdf"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
)


class FileSettings(IdentitySettings):
    public_url: str | None = Field(
        default=None, description="public base URL of this server, used in file URLs; unset: taken from the request"
    )
    url_secret: SecretStr | None = Field(
        default=None, description="key that signs file URLs, at least 32 bytes; unset: CHAT_JWT_SECRET"
    )
    erasure_key: SecretStr | None = Field(
        default=None,
        description="key of the hashes of erased users and of the audit log, at least 32 bytes; unset: CHAT_JWT_SECRET",
    )
    backup_days: int | None = Field(
        default=None, ge=0, description="how long you keep backups, for the receipt of an erasure"
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
        description="redirect downloads to presigned bucket URLs; previews are still served by this server",
    )
    link_seconds: int = Field(
        default=3600, ge=60, le=7 * 24 * 3600, description="lifetime of a signed file URL, in seconds"
    )
    attachment_types: Annotated[tuple[str, ...], NoDecode] = Field(
        default=DEFAULT_ATTACHMENT_TYPES, description="accepted media types, comma-separated, or `none`"
    )
    max_attachment_bytes: int = Field(default=20 * 1024 * 1024, ge=1, description="maximum size of a file, in bytes")
    max_image_pixels: int = Field(default=40_000_000, ge=1, description="maximum number of pixels of an image")
    max_attachments_per_message: int = Field(
        default=10, ge=1, le=100, description="maximum number of files in one message"
    )
    max_unsent_attachments: int = Field(
        default=50, ge=1, description="maximum number of files of one user that were not sent yet"
    )
    upload_seconds: float = Field(default=300, gt=0, le=1800, description="maximum upload time, in seconds")
    file_tokens: int = Field(
        default=16_000,
        ge=0,
        description="token budget for attached texts in one call, estimated; newest files first",
    )
    model_images: int = Field(
        default=8, ge=0, le=100, description="maximum number of images in one model call; newest first"
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
            raise ValueError("use a URL like https://chat.example.com")
        return value.rstrip("/")

    @field_validator("storage_url")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9._-]+(/[\w./-]*)?", value):
            raise ValueError("use s3://bucket or s3://bucket/prefix")
        return value

    @property
    def origin_of_uploads(self) -> str:
        """The beginning of the URLs of files; empty if it is the one of each request."""
        return _origin(self.public_url) if self.public_url is not None else ""

    @property
    def origin_of_images(self) -> str:
        """The origin of the bucket, if browsers are sent there."""
        if not self.direct_downloads or self.storage_url is None:
            return ""
        return _origin(self.aws_endpoint_url or f"https://s3.{self.aws_region}.amazonaws.com")

    @property
    def link_key(self) -> str | None:
        """The key that signs URLs of files; in development mode, where it is None, the secret of the tokens."""
        return self.url_secret.get_secret_value() if self.url_secret is not None else self.jwt_key

    def key_of_hashes(self, data_dir: Path, *, is_dev: bool) -> str:
        """The key of the hashes of erased users and of the audit log. Raises ConfigurationError if there is none."""
        if problems := self.hash_key_problems(is_dev=is_dev):
            raise ConfigurationError(problems)
        if self.erasure_key is None:
            return self.shared_secret(data_dir, is_dev=is_dev)
        return self.erasure_key.get_secret_value()

    def hash_key_problems(self, *, is_dev: bool) -> list[str]:
        if self.erasure_key is None:
            if is_dev or (self.jwt_key is not None and not self.uses_key_set):
                return []
            return [f"CHAT_ERASURE_KEY: needed for erasures and the audit log, and not set. {CURE}"]
        if len(self.erasure_key.get_secret_value().encode()) < MIN_SECRET_BYTES:
            return [f"CHAT_ERASURE_KEY: shorter than {MIN_SECRET_BYTES} bytes. {CURE}"]
        return []

    def link_key_problems(self) -> list[str]:
        if self.link_key is None:
            return [f"CHAT_URL_SECRET: needed to sign file URLs, and not set. {CURE}"]
        if self.url_secret is not None and len(self.link_key.encode()) < MIN_SECRET_BYTES:
            return [f"CHAT_URL_SECRET: shorter than {MIN_SECRET_BYTES} bytes. {CURE}"]
        return []

    def storage_problems(self) -> list[str]:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            return ["AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: set both, or none of them."]
        return []

    def file_storage(self, data_dir: Path, on_failure: Callable[[str], object] = lambda _: None) -> "Storage":
        """The storage of attachments. ``on_failure`` is called with the name of each operation that fails. Raises
        ConfigurationError if it cannot be opened."""
        from chatkit_postgres.attachments.storage import NoStorage

        missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
        if missing and self.attachment_types == ():
            return NoStorage()
        if missing:
            raise ConfigurationError(
                [f"CHAT_ATTACHMENT_TYPES: files need {', '.join(missing)}. Install them, or set it to none."]
            )
        from obstore.exceptions import BaseError

        from chatkit_postgres.attachments.object_storage import Bucket, ObjectStorage

        if self.storage_url is not None:
            name, _, prefix = self.storage_url.removeprefix("s3://").partition("/")
            secret, token = self.aws_secret_access_key, self.aws_session_token
            bucket = Bucket(
                name=name,
                prefix=prefix.strip("/") or None,
                endpoint=self.aws_endpoint_url,
                region=self.aws_region,
                access_key_id=self.aws_access_key_id,
                secret_access_key=secret.get_secret_value() if secret is not None else None,
                session_token=token.get_secret_value() if token is not None else None,
            )
            try:
                return ObjectStorage.in_bucket(bucket, on_failure)
            except BaseError as error:
                raise ConfigurationError([f"CHAT_STORAGE_URL: {type(error).__name__}."]) from None
        directory = data_dir.resolve() / "attachments"
        try:
            return ObjectStorage.in_directory(directory, on_failure)
        except OSError as error:
            problem = f"CHAT_DATA_DIR: cannot write {directory}: {error.strerror}. Or set CHAT_STORAGE_URL."
            raise ConfigurationError([problem]) from error

    def file_limits(self) -> "FileLimits":
        from chatkit_postgres.attachments.intake import FileLimits
        from chatkit_postgres.attachments.kinds import AcceptedTypes

        return FileLimits(
            max_bytes=self.max_attachment_bytes,
            max_pixels=self.max_image_pixels,
            max_unsent=self.max_unsent_attachments,
            accepted=AcceptedTypes(self.attachment_types),
            text_characters=self.file_tokens * CHARACTERS_PER_TOKEN,
            max_images=self.model_images,
        )


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
