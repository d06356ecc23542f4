"""The claim that makes a token one of the staff, who may read the conversations of users."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from chatkit_postgres.auth.claims import values_of


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
        return self.value in values_of(claims, self.name)
