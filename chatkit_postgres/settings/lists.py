"""Lists in environment variables."""

from typing import Any


def split(value: Any) -> Any:
    """A list as an environment variable writes it: with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
