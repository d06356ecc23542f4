"""Settings of what a user may do: requests, turns, tokens."""

from typing import TYPE_CHECKING

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from chatkit_postgres.auth.daily_tokens import DailyTokens
    from chatkit_postgres.chat.turns.admission import AdmissionRules

MAX_TOKENS = 10**15


class LimitSettings(BaseSettings):
    shared_limits: bool | None = Field(
        default=None,
        description="count a user's requests and turns over all processes; unset: with a DATABASE_URL",
    )
    requests_per_minute: int = Field(default=300, ge=1, description="maximum requests per user")
    turns_per_user: int = Field(default=20, ge=1, description="maximum concurrent turns per user")
    tokens_per_day: int | None = Field(
        default=None, ge=0, le=MAX_TOKENS, description="maximum tokens per user and day (UTC); unset: any number"
    )
    tokens_per_day_by: str | None = Field(
        default=None, description="the same by a claim of the token, such as `plan:free=20000,pro=500000`"
    )
    tokens_reserved_per_turn: int = Field(
        default=4000, ge=1, le=MAX_TOKENS, description="tokens held for a turn until it has ended"
    )

    @field_validator("tokens_per_day_by")
    @classmethod
    def _claim_and_numbers(cls, value: str | None) -> str | None:
        from chatkit_postgres.auth.daily_tokens import TokensByClaim

        if value is not None:
            TokensByClaim.parse(value)
        return value

    def limit_problems(self) -> list[str]:
        if self.tokens_per_day_by is None or self.tokens_per_day is not None:
            return []
        return [
            "CHAT_TOKENS_PER_DAY_BY: set CHAT_TOKENS_PER_DAY, too, for users whose claim has another value, or none."
        ]

    def daily_tokens(self) -> "DailyTokens | None":
        """None: nobody's tokens are limited."""
        from chatkit_postgres.auth.daily_tokens import DailyTokens, TokensByClaim

        if self.tokens_per_day is None:
            return None
        by_claim = TokensByClaim.parse(self.tokens_per_day_by) if self.tokens_per_day_by is not None else None
        return DailyTokens(self.tokens_per_day, by_claim)

    def admission_rules(self, *, are_shared: bool) -> "AdmissionRules":
        from chatkit_postgres.chat.turns.admission import AdmissionRules

        return AdmissionRules(self.turns_per_user if are_shared else None, self.tokens_reserved_per_turn)
