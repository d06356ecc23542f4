"""The claim that makes a token one of the staff, who may read the conversations of users."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# OAuth's claims of scopes are strings of several, separated by spaces (RFC 8693, section 4.2; Microsoft's `scp`).
_SCOPES = frozenset({"scope", "scp"})


@dataclass(frozen=True, slots=True)
class StaffClaim:
    name: str
    """A claim, or the way to a member of one: ``realm_access.roles``."""
    value: str
    """What it is, or what it has among others, if it is a list."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``name:value``; the value comes after the last colon, because names may be URLs. Raises ValueError."""
        name, _, value = text.rpartition(":")
        if not name or not value or text != text.strip():
            raise ValueError("use claim:value, such as role:support")
        return cls(name, value)

    def is_met_by(self, claims: Mapping[str, Any]) -> bool:
        given = self._given(claims)
        if isinstance(given, str):
            return self.value in (given.split(" ") if self.name in _SCOPES else [given])
        if isinstance(given, list):
            return self.value in given
        return given is True and self.value == "true"

    def _given(self, claims: Mapping[str, Any]) -> Any:
        if self.name in claims:
            return claims[self.name]
        value: Any = claims
        for step in self.name.split("."):
            if not isinstance(value, Mapping) or step not in value:
                return None
            value = value[step]
        return value
