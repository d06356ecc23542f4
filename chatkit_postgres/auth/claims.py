"""Reads what a token says of its user, wherever issuers put it."""

from collections.abc import Mapping
from typing import Any

# OAuth's claims of scopes are strings of several, separated by spaces (RFC 8693, section 4.2; Microsoft's `scp`).
_SCOPES = frozenset({"scope", "scp"})


def values_of(claims: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a claim, of which it may have several. ``name`` is a claim, or the way to a member of one:
    ``realm_access.roles``."""
    given = _given(claims, name)
    if isinstance(given, str):
        return given.split(" ") if name in _SCOPES else [given]
    if isinstance(given, list):
        return [value for value in given if isinstance(value, str)]
    return ["true"] if given is True else []


def _given(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value
