"""How many tokens a user may spend on a day: the same number for all, or by a claim such as their plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from chatkit_postgres.auth.claims import values_of

FORM = "use claim:value=tokens,value=tokens, such as plan:free=20000,pro=500000"
_MAX_DIGITS = 15


@dataclass(frozen=True, slots=True)
class TokensByClaim:
    claim: str
    """A claim, or the way to a member of one: ``realm_access.roles``."""
    tokens: Mapping[str, int]
    """By the claim's value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``claim:value=tokens,…``; the first value comes after the last colon, because names may be URLs. Raises
        ValueError."""
        first, *more = text.split(",")
        claim, _, first = first.rpartition(":")
        tokens: dict[str, int] = {}
        for pair in (first, *more):
            value, _, number = (part.strip() for part in pair.rpartition("="))
            if not value or value in tokens or not re.fullmatch(rf"[0-9]{{1,{_MAX_DIGITS}}}", number):
                raise ValueError(FORM)
            tokens[value] = int(number)
        if not claim.strip():
            raise ValueError(FORM)
        return cls(claim.strip(), tokens)


@dataclass(frozen=True, slots=True)
class DailyTokens:
    otherwise: int
    """The tokens of a user about whom the claim says nothing that is known."""
    by_claim: TokensByClaim | None = field(default=None)

    def of(self, claims: Mapping[str, Any]) -> int:
        """The tokens of a user with these claims; if several values are known, the most."""
        if self.by_claim is None:
            return self.otherwise
        tokens = self.by_claim.tokens
        return max(
            (tokens[value] for value in values_of(claims, self.by_claim.claim) if value in tokens),
            default=self.otherwise,
        )
