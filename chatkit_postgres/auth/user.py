"""The user of a request, identified by a token or by the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

from chatkit_postgres.strict_json import path_to_unsafe_text

MAX_USER_ID = 255
MAX_CLAIM = 1000
MAX_ROLES = 100
MAX_CLAIMS = 50
MAX_NAME = 100

Claim = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class User:
    """``id``: 1 to 255 printable characters, which must never change for a user, because all stored data belongs to the
    id. ``claims``: facts about the user for assistants, such as a name or roles; they are stored with the user."""

    id: str
    claims: Mapping[str, Claim] = field(default_factory=dict)
    is_staff: bool = False
    """Whether the user may read the conversations of others, where ``CHAT_STAFF_CLAIM`` is set."""
    tokens_per_day: int | None = None
    """How many tokens the user may spend on a day (UTC); None: as ``CHAT_TOKENS_PER_DAY`` says."""


def is_user_id(value: Any) -> bool:
    """1 to 255 printable characters, with no space at either end."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_USER_ID and value.isprintable() and value == value.strip()


def storable_claims(claims: Mapping[str, Any]) -> Mapping[str, Claim]:
    """Drop claims that are too long, too many or of another type: claims are optional, so a bad one never locks a user
    out."""
    storable = ((name, value) for name, value in claims.items() if _is_name(name) and _is_storable(value))
    return MappingProxyType(dict(islice(storable, MAX_CLAIMS)))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME and path_to_unsafe_text(name) is None


def _is_storable(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_ROLES and all(isinstance(element, str) and _is_storable(element) for element in value)
    if isinstance(value, str):
        return len(value) <= MAX_CLAIM and path_to_unsafe_text(value) is None
    return isinstance(value, bool | int | float)
