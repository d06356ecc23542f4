"""Reads settings, and reports malformed and unknown ones by name."""

import os
from difflib import get_close_matches
from tomllib import TOMLDecodeError
from typing import Any

from dotenv import dotenv_values
from pydantic import AliasChoices, ValidationError
from pydantic_settings import PyprojectTomlConfigSettingsSource

from chatkit_postgres.settings.errors import ConfigurationError
from chatkit_postgres.settings.settings import Settings

NOT_OURS = frozenset({"CHAT_BACKEND_URL", "CHAT_AGENTS_DIR"})
"""Variables in the same .env that the web app and compose read."""


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
