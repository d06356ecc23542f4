"""What a user does over all processes: requests of the last minutes, turns that run, and tokens of today."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chatkit_postgres.db import Database
from chatkit_postgres.errors import BudgetUsedUp, TooManyRequests, TooManyTurns
from chatkit_postgres.store.caller import Caller, owner_of
from chatkit_postgres.store.sql import limits as sql

UNLIMITED = 2**62
WAIT_FOR_HELD_TOKENS = 10
TRIES = 3


@dataclass(frozen=True, slots=True)
class Rate:
    """The requests of a user in the window of a minute that began ``seconds`` ago, and in the one before it."""

    requests: int
    earlier: int
    seconds: float

    @property
    def now(self) -> float:
        """How many count: of those before the window a part, as if they had come evenly."""
        rate = self._in_its_window()
        return rate.requests + rate.earlier * (1 - rate.seconds / sql.WINDOW_SECONDS)

    def seconds_until_below(self, per_minute: int) -> float:
        """Until one more request is within the limit, if no other comes."""
        rate, room = self._in_its_window(), per_minute - 1
        if rate.requests <= room:
            after = sql.WINDOW_SECONDS * (1 - (room - rate.requests) / rate.earlier) if rate.earlier else 0
        else:
            after = sql.WINDOW_SECONDS * (2 - room / rate.requests)
        return max(0.0, after - rate.seconds)

    def _in_its_window(self) -> "Rate":
        if self.seconds < sql.WINDOW_SECONDS:
            return self
        if self.seconds < 2 * sql.WINDOW_SECONDS:
            return Rate(0, self.requests, self.seconds - sql.WINDOW_SECONDS)
        return Rate(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the running turns of a user hold, and the tokens that the user has spent today (UTC)."""

    turns: int
    tokens_held: int
    tokens_spent: int


class LimitRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_requests(self, caller: Caller, requests: int, *, per_minute: int) -> tuple[bool, Rate]:
        """Count requests of a user. Returns whether they are within the limit, and the rate; beyond the limit, nothing
        is counted. It may be passed by all but one of ``requests``."""
        (found,) = await self._database.run(
            owner_of(caller), sql.COUNT_REQUESTS, requests=requests, per_minute=per_minute
        )
        return found["are_counted"], Rate(found["requests"], found["earlier"], found["seconds"])

    async def hold_turn(
        self, turn_id: UUID, caller: Caller, *, max_turns: int | None, tokens: int, tokens_per_day: int | None
    ) -> None:
        """Take a place among the user's running turns, and ``tokens`` of today's until the turn ends. None: unlimited.

        Raises TooManyTurns or BudgetUsedUp, and holds nothing then.
        """
        limits = {
            "max_turns": UNLIMITED if max_turns is None else max_turns,
            "tokens_per_day": UNLIMITED if tokens_per_day is None else tokens_per_day,
        }
        refusal: TooManyRequests = BudgetUsedUp(retry_after_seconds=seconds_until_tomorrow())
        for _ in range(TRIES):
            if tokens > limits["tokens_per_day"]:
                break
            if await self._database.run(owner_of(caller), sql.HOLD_TURN, hold=str(turn_id), tokens=tokens, **limits):
                return
            allowance = await self.allowance(caller)
            spent, held = allowance.tokens_spent, allowance.tokens_held
            if allowance.turns >= limits["max_turns"]:
                raise TooManyTurns
            if spent >= limits["tokens_per_day"]:
                break
            refusal = BudgetUsedUp(retry_after_seconds=WAIT_FOR_HELD_TOKENS, is_held=True)
            if held > 0 and spent + held + tokens > limits["tokens_per_day"]:
                break
            # A turn has ended between the two statements.
            refusal = TooManyTurns()
        raise refusal

    async def release_turn(self, turn_id: UUID, caller: Caller) -> None:
        """Release what a turn holds that has no end of its own in the ledger."""
        await self._database.run(owner_of(caller), sql.RELEASE_TURN, hold=str(turn_id))

    async def allowance(self, caller: Caller) -> Allowance:
        found = await self._database.run(owner_of(caller), sql.READ_ALLOWANCE)
        return Allowance(**found[0]) if found else Allowance(0, 0, 0)


def seconds_until_tomorrow() -> int:
    """Until tokens of the next day can be spent, rounded up."""
    return int((tomorrow() - datetime.now(UTC)).total_seconds()) + 1


def tomorrow() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)
