"""Whose tokens are how many, and how often a process asks the database."""

import asyncio
from typing import Any

import pytest

from chatkit_postgres.api.rate_limit import SharedRateLimit
from chatkit_postgres.auth.daily_tokens import DailyTokens, TokensByClaim
from chatkit_postgres.errors import TooManyRequests
from chatkit_postgres.store import DatabaseStore
from tests.support.sql import Statements


@pytest.mark.parametrize(
    ("text", "claim", "tokens"),
    [
        ("plan:free=20000,pro=500000", "plan", {"free": 20000, "pro": 500000}),
        (" plan : free = 1 , pro=2", "plan", {"free": 1, "pro": 2}),
        ("https://acme.example/plan:free=0", "https://acme.example/plan", {"free": 0}),
        ("app.plan:a b=1,c:d=2,e=f=3", "app.plan", {"a b": 1, "c:d": 2, "e=f": 3}),
    ],
)
def test_a_claim_with_its_numbers(text: str, claim: str, tokens: dict[str, int]) -> None:
    parsed = TokensByClaim.parse(text)
    assert (parsed.claim, parsed.tokens) == (claim, tokens)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plan",
        "plan:",
        "plan:free",
        "plan:free=",
        "plan:=1",
        ":free=1",
        "plan:free=-1",
        "plan:free=1e3",
        "plan:free=1,free=2",
        "plan:free=1,",
        "plan:free=1,pro",
        "plan:free=" + "9" * 16,
        "plan:free=²",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use claim:value=tokens"):
        TokensByClaim.parse(text)


@pytest.mark.parametrize(
    ("claims", "tokens"),
    [
        ({}, 10),
        ({"plan": "free"}, 1),
        ({"plan": "unknown"}, 10),
        ({"plan": ["free", "pro", "unknown"]}, 5),
        ({"plan": {"free": 1}}, 10),
        ({"plan": True}, 10),
        ({"plan": 1}, 10),
    ],
)
def test_the_most_of_what_a_claim_says(claims: dict[str, Any], tokens: int) -> None:
    assert DailyTokens(10, TokensByClaim("plan", {"free": 1, "pro": 5})).of(claims) == tokens


async def spend_until_refused(limit: SharedRateLimit, user: str) -> int:
    for number in range(10_000):
        try:
            await limit.spend(user)
        except TooManyRequests:
            return number
    raise AssertionError("never refused")


async def test_a_process_asks_seldom_while_the_limit_is_far(store: DatabaseStore) -> None:
    statements, limit = Statements(store.database), SharedRateLimit(store.limits, 1000)
    for _ in range(300):
        await limit.spend("alice")
    first = len(statements.names)
    assert set(statements.names) == {"count_requests"}
    assert first < 300 / 15
    assert 300 + await spend_until_refused(limit, "alice") == pytest.approx(1000, abs=25)
    # Close to the limit once for each request, and never more.
    assert len(statements.names) < 250
    before = len(statements.names)
    for _ in range(50):
        with pytest.raises(TooManyRequests) as refused:
            await limit.spend("alice")
        assert 1 <= (refused.value.retry_after_seconds or 0) <= 61
    assert len(statements.names) == before, "who is refused costs nothing"
    # Nobody else is.
    await limit.spend("bob")


@pytest.mark.parametrize("per_minute", [1, 2, 5, 40, 300])
@pytest.mark.parametrize("processes", [1, 4])
async def test_a_limit_is_kept_within_a_tenth(store: DatabaseStore, per_minute: int, processes: int) -> None:
    limits = [SharedRateLimit(store.limits, per_minute) for _ in range(processes)]
    total = 0
    for number in range(per_minute * 3):
        try:
            await limits[number % processes].spend("alice")
            total += 1
        except TooManyRequests:
            continue
    assert abs(total - per_minute) <= per_minute * 0.1


async def test_a_burst_is_not_counted_ahead_by_each_of_its_requests(store: DatabaseStore) -> None:
    limit = SharedRateLimit(store.limits, 300)
    await limit.spend("alice")
    await asyncio.gather(*(limit.spend("alice") for _ in range(40)))
    _, rate = await store.limits.count_requests({"user_id": "alice"}, 0, per_minute=300)
    assert 41 <= rate.requests <= 41 + 300 / 40


async def test_a_process_forgets_users_who_are_gone(store: DatabaseStore) -> None:
    limit = SharedRateLimit(store.limits, 5)
    limit.MAX_USERS = 3
    for number in range(10):
        await limit.spend(f"user-{number}")
    assert len(limit._known) == 3
