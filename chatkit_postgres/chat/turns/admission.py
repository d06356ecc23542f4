"""Lets a turn in if its user may have one more, over all processes, and has tokens left today."""

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from chatkit.types import NoticeEvent

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import BudgetUsedUp, TooManyTurns
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.outcome import Settled

ENDING_SECONDS = 2.0
NOTICE_AT = 0.8
"""Fraction of a day's tokens at which the user gets a notice."""

EndingTurns = Callable[[str], Collection[asyncio.Task[None]]]
"""The tasks of a user's turns in this process that were stopped and still save what they have."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    turns_per_user: int | None = None
    """Over all processes; None: each process counts its own."""
    tokens_per_turn: int = 4000
    """Held of a user's tokens until a turn has ended, where the user's tokens of a day are limited."""


class Admission:
    def __init__(self, store: DatabaseStore, rules: AdmissionRules, ending: EndingTurns) -> None:
        self._limits = store.limits
        self._rules = rules
        self._ending = ending

    async def enter(self, context: RequestContext) -> bool:
        """Take a place for the turn of this context, until its end is written. Returns whether one was needed. Raises
        TooManyTurns or BudgetUsedUp."""
        session, tokens_per_day = required_session(context), context.tokens_per_day
        if tokens_per_day is None and self._rules.turns_per_user is None:
            return False
        tokens = 0
        if tokens_per_day is not None:
            # Someone with fewer tokens has one turn at a time.
            tokens = max(1, min(self._rules.tokens_per_turn, tokens_per_day))
        try:
            await self._hold(context, tokens)
        except (TooManyTurns, BudgetUsedUp):
            # Who stops an answer and writes at once should not be refused for the answer that was stopped.
            if not (ending := self._ending(context.user_id)):
                raise
            await asyncio.wait(ending, timeout=ENDING_SECONDS)
            await self._hold(context, tokens)
        session.tokens_held = tokens
        return True

    async def _hold(self, context: RequestContext, tokens: int) -> None:
        await self._limits.hold_turn(
            required_session(context).turn_id,
            context,
            max_turns=self._rules.turns_per_user,
            tokens=tokens,
            tokens_per_day=context.tokens_per_day,
        )

    async def leave(self, context: RequestContext) -> None:
        """Release what a turn holds that was never opened."""
        await self._limits.release_turn(required_session(context).turn_id, context)


def notice_of_tokens(settled: Settled, tokens_per_day: int | None) -> NoticeEvent | None:
    """Once a day, for the turn that has used up most of its user's tokens."""
    if not tokens_per_day or not settled.reaches(math.ceil(NOTICE_AT * tokens_per_day)):
        return None
    left = max(0, tokens_per_day - (settled.tokens_today or 0))
    message = f"You have used {NOTICE_AT:.0%} of your tokens of today, and have {left:,} left."
    return NoticeEvent(level="warning", message=message if left else "You have used up your tokens of today.")
