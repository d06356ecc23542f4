"""Settings of the database."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from chatkit_postgres.db.address import normalised_url

if TYPE_CHECKING:
    from chatkit_postgres.store.retention import Retention


class DatabaseSettings(BaseSettings):
    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="PostgreSQL to use; unset: an embedded one in CHAT_DATA_DIR, started by `serve`",
    )
    database_pool_size: int = Field(
        default=10,
        ge=1,
        le=500,
        description="maximum connections per process; a turn holds none while a model responds",
    )
    data_dir: Path = Field(
        default=Path(".data"), description="the embedded cluster and the secret of development tokens"
    )
    postgres_bin: Path | None = Field(
        default=None, description="directory of the PostgreSQL programs for the embedded server"
    )

    retention_days: int | None = Field(
        default=None, ge=1, description="delete threads whose newest item is older than this; unset: never"
    )
    retention_keeps_locked: bool = Field(default=True, description="locked and closed threads are never too old")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            normalised_url(value.get_secret_value())
        return value

    def retention(self) -> "Retention | None":
        from chatkit_postgres.store.retention import Retention

        return Retention(self.retention_days, self.retention_keeps_locked) if self.retention_days is not None else None

    @property
    def is_embedded(self) -> bool:
        return self.database_url is None
