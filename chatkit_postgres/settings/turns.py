"""Settings of turns."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from chatkit_postgres.chat.turns.running_turn import TurnLimits


class TurnSettings(BaseSettings):
    on_disconnect: Literal["stop", "finish"] = Field(
        default="stop", description="what a turn does when its last reader leaves"
    )
    turn_seconds: float = Field(
        default=600, gt=0, description="maximum duration of a turn, in seconds; its partial answer is saved"
    )
    turn_stale_seconds: float = Field(
        default=30,
        ge=1,
        description="seconds without a heartbeat after which a turn is interrupted; six are sent in that time",
    )
    drain_seconds: float = Field(default=30, ge=0, description="seconds that running turns get to end after SIGTERM")
    max_answer_characters: int = Field(
        default=1_000_000, ge=1000, description="maximum length of an answer, in characters"
    )
    max_turns: int = Field(
        default=2000, ge=1, description="maximum concurrent turns per process; beyond it, requests are refused with 503"
    )

    def turn_limits(self, *, turns_per_user: int) -> "TurnLimits":
        from chatkit_postgres.chat.turns.running_turn import TurnLimits

        return TurnLimits(
            turn_seconds=self.turn_seconds,
            stale_seconds=self.turn_stale_seconds,
            turns_per_user=turns_per_user,
            max_turns=self.max_turns,
        )
