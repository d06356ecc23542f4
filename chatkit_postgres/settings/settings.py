"""Settings: the settings of all rooms."""

from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from chatkit_postgres.settings.database import DatabaseSettings
from chatkit_postgres.settings.files import FileSettings
from chatkit_postgres.settings.limits import LimitSettings
from chatkit_postgres.settings.model import ModelSettings
from chatkit_postgres.settings.requests import RequestSettings
from chatkit_postgres.settings.turns import TurnSettings


# FileSettings extends IdentitySettings, whose key also signs URLs of files.
class Settings(DatabaseSettings, ModelSettings, TurnSettings, LimitSettings, RequestSettings, FileSettings):
    """From the environment, ``.env``, and ``[tool.chatkit-postgres]`` of ``pyproject.toml``, in this order."""

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
