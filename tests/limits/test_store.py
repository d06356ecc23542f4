"""What a user does is counted in the database: requests, running turns, tokens."""

import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import BudgetUsedUp, TooManyTurns
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.limits import Allowance, Rate
from chatkit_postgres.store.maintenance import close_stale_turns, release_dead_holds
from chatkit_postgres.store.outcome import EndState, Outcome, Settled
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import stored
from tests.support.items import thread, user_message
from tests.support.sql import sql_connection

ALICE = {"user_id": "alice"}


async def change(store: DatabaseStore, command: str, **values: Any) -> None:
    async with sql_connection(store.database) as connection:
        await connection.execute(text(command), values)


async def hold(
    store: DatabaseStore,
    owner: str = "alice",
    *,
    turn: UUID | None = None,
    max_turns: int | None = None,
    tokens: int = 0,
    tokens_per_day: int | None = None,
) -> UUID:
    turn = turn or uuid4()
    await store.limits.hold_turn(
        turn, {"user_id": owner}, max_turns=max_turns, tokens=tokens, tokens_per_day=tokens_per_day
    )
    return turn


async def test_requests_are_counted_up_to_the_limit(store: DatabaseStore) -> None:
    for number in range(1, 6):
        are_counted, rate = await store.limits.count_requests(ALICE, 1, per_minute=5)
        assert (are_counted, rate.requests, rate.earlier) == (True, number, 0)
    are_counted, rate = await store.limits.count_requests(ALICE, 1, per_minute=5)
    assert (are_counted, rate.requests) == (False, 5)
    assert 0 < rate.seconds_until_below(5) <= 60 + 60 / 5
    # Nobody else's.
    assert (await store.limits.count_requests({"user_id": "bob"}, 1, per_minute=5))[0]


async def test_a_clock_that_was_ahead_locks_nobody_out(store: DatabaseStore) -> None:
    """That of the server before a failover."""
    assert (await store.limits.count_requests(ALICE, 5, per_minute=5))[0]
    await change(store, "UPDATE chat_rates SET window_began = window_began + 600, counted_at = counted_at + 600")
    are_counted, rate = await store.limits.count_requests(ALICE, 1, per_minute=5)
    assert (are_counted, rate.requests, rate.earlier) == (True, 1, 0)


async def test_at_once_no_more_are_counted_than_the_limit(store: DatabaseStore) -> None:
    counted = await asyncio.gather(*(store.limits.count_requests(ALICE, 1, per_minute=20) for _ in range(60)))
    assert sum(are_counted for are_counted, _ in counted) == 20


async def test_the_database_and_this_code_mean_the_same_by_a_rate(store: DatabaseStore) -> None:
    """For windows of every age: the database refuses where there is no room, and there is room when it was said."""
    chance = random.Random(7)
    for _ in range(150):
        rate = Rate(chance.randint(1, 12), chance.choice([0, chance.randint(1, 12)]), chance.uniform(0, 130))
        limit = chance.randint(1, 14)
        wait = rate.seconds_until_below(limit)
        # Half a second, because time passes between the statements.
        for age, expected in (
            (rate.seconds, wait == 0),
            (rate.seconds + wait + 0.5, True),
            (rate.seconds + wait - 0.5, False),
        ):
            if wait < 1 and age != rate.seconds:
                continue
            await change(store, "DELETE FROM chat_rates")
            await change(
                store,
                "INSERT INTO chat_rates VALUES ('alice', extract(epoch FROM now()) - :age, :requests, :earlier, 0)",
                age=age,
                requests=rate.requests,
                earlier=rate.earlier,
            )
            are_counted, seen = await store.limits.count_requests(ALICE, 1, per_minute=limit)
            if 0 < wait < 1:
                continue
            assert are_counted == expected, (rate, limit, age, wait)
            assert seen.now == pytest.approx(Rate(rate.requests, rate.earlier, age).now + are_counted, abs=0.3)


async def test_as_many_turns_run_as_may(store: DatabaseStore) -> None:
    async def tries() -> bool:
        try:
            await hold(store, max_turns=3)
        except TooManyTurns:
            return False
        return True

    assert sum(await asyncio.gather(*(tries() for _ in range(20)))) == 3
    await hold(store, "bob", max_turns=3)
    assert (await store.limits.allowance(ALICE)).turns == 3


async def test_the_same_turn_is_held_once(store: DatabaseStore) -> None:
    """A statement whose answer was lost is sent again."""
    turn = await hold(store, max_turns=1, tokens=60, tokens_per_day=100)
    assert await hold(store, turn=turn, max_turns=1, tokens=60, tokens_per_day=100) == turn
    assert await store.limits.allowance(ALICE) == Allowance(1, 60, 0)
    await store.limits.release_turn(turn, ALICE)
    assert await store.limits.allowance(ALICE) == Allowance(0, 0, 0)


async def test_one_that_ends_makes_room(store: DatabaseStore) -> None:
    turn = await hold(store, max_turns=1)
    # Twice is once, and another's is nobody's.
    for released in (uuid4(), turn, turn):
        await store.limits.release_turn(released, ALICE)
    await store.limits.release_turn(turn, {"user_id": "bob"})
    assert await store.limits.allowance(ALICE) == Allowance(0, 0, 0)
    await hold(store, max_turns=1)


async def test_tokens_are_held_for_as_many_turns_as_they_are_enough_for(store: DatabaseStore) -> None:
    async def tries() -> str:
        try:
            await hold(store, tokens=4000, tokens_per_day=43_999)
        except BudgetUsedUp as error:
            return f"{error.message} {error.retry_after_seconds}"
        return ""

    results = await asyncio.gather(*(tries() for _ in range(40)))
    assert results.count("") == 10
    (refusal,) = set(results) - {""}
    assert refusal == "Your other answers may need the rest of your tokens of today. Please wait for one of them. 10"
    assert await store.limits.allowance(ALICE) == Allowance(10, 40_000, 0)


async def test_the_rest_of_a_day_is_for_one_answer_at_a_time(store: DatabaseStore) -> None:
    turn = await hold(store, tokens=100, tokens_per_day=100)
    await store.limits.release_turn(turn, ALICE)
    await change(store, "UPDATE chat_allowances SET tokens_spent = 99")

    async def tries() -> bool:
        try:
            await hold(store, tokens=100, tokens_per_day=100)
        except BudgetUsedUp:
            return False
        return True

    assert sum(await asyncio.gather(*(tries() for _ in range(20)))) == 1


async def test_tokens_that_are_used_up_come_back_at_midnight(store: DatabaseStore) -> None:
    turn = await hold(store, tokens=100, tokens_per_day=100)
    await store.limits.release_turn(turn, ALICE)
    await change(store, "UPDATE chat_allowances SET tokens_spent = 100")
    with pytest.raises(BudgetUsedUp, match="used up") as refused:
        await hold(store, tokens=100, tokens_per_day=100)
    assert 0 < (refused.value.retry_after_seconds or 0) <= 86_400
    assert not refused.value.allow_retry
    await change(store, "UPDATE chat_allowances SET day = day - 1")
    assert await store.limits.allowance(ALICE) == Allowance(0, 0, 0)
    await hold(store, tokens=100, tokens_per_day=100)
    # What runs past midnight still holds what it may need.
    await change(store, "UPDATE chat_allowances SET day = day - 1")
    with pytest.raises(BudgetUsedUp, match="other answers"):
        await hold(store, tokens=1, tokens_per_day=100)


async def opened(
    store: DatabaseStore, thread_id: str, *, tokens: int = 100, tokens_per_day: int = 1000
) -> RequestContext:
    context = RequestContext(user_id="alice", session=WriteSession("threads.add_user_message"))
    assert context.session is not None
    await hold(store, turn=context.session.turn_id, tokens=tokens, tokens_per_day=tokens_per_day)
    context.session.tokens_held = tokens
    await store.save_thread(thread(thread_id), RequestContext(user_id="alice"))
    await store.add_thread_item(thread_id, user_message(thread_id, f"m-{thread_id}"), context)
    return context


@pytest.mark.parametrize(
    ("state", "usage", "spent"),
    [
        ("completed", {"input_tokens": 30, "cached_tokens": 20, "output_tokens": 7, "reasoning_tokens": 5}, 37),
        ("completed", {"input_tokens": 3000, "output_tokens": 7}, 3007),
        # A model that does not say what it took.
        ("completed", {"input_tokens": 0, "output_tokens": 0}, 100),
        # No model.
        ("completed", None, 0),
        ("stopped", None, 0),
        # Cut off in the first call, in the second one, and in one that is larger than what was held.
        ("stopped", {"input_tokens": 0, "output_tokens": 0}, 100),
        ("superseded", {"input_tokens": 30, "output_tokens": 7}, 100),
        ("interrupted", {"input_tokens": 3000, "output_tokens": 7}, 3007),
        # A provider that is away takes nothing.
        ("failed", {"input_tokens": 0, "output_tokens": 0}, 0),
        ("failed", {"input_tokens": 30, "output_tokens": 7}, 37),
    ],
)
async def test_a_turn_is_settled_with_its_end(
    store: DatabaseStore, state: EndState, usage: dict[str, int] | None, spent: int
) -> None:
    context, other = await opened(store, "a"), await opened(store, "b")
    for expected in (Settled(spent, spent), None):
        assert await store.turns.finish(context, Outcome(state, usage=usage)) == expected
        assert await store.limits.allowance(ALICE) == Allowance(1, 100, spent)
    await store.turns.finish(other, Outcome("failed"))
    assert await store.limits.allowance(ALICE) == Allowance(0, 0, spent)


async def test_a_turn_that_is_settled_on_the_next_day_is_spent_on_that_day(store: DatabaseStore) -> None:
    context = await opened(store, "a")
    await change(store, "UPDATE chat_allowances SET day = day - 1, tokens_spent = 500")
    assert await store.turns.finish(context, Outcome("completed", usage={"output_tokens": 9})) == Settled(9, 9)
    assert await store.limits.allowance(ALICE) == Allowance(0, 0, 9)


def test_a_day_is_told_once() -> None:
    ends = [Settled(tokens, after) for tokens, after in ((50, 50), (29, 79), (1, 80), (0, 80), (30, 110))]
    assert [end.reaches(80) for end in ends] == [False, False, True, False, False]
    assert not Settled(100, None).reaches(80)


async def test_what_a_dead_process_held_is_free_with_the_end_of_its_turn(store: DatabaseStore) -> None:
    await opened(store, "a")
    alive = await opened(store, "b")
    await change(
        store,
        "UPDATE chat_turns SET heartbeat_at = now() - interval '31 s' WHERE turn_id <> :alive",
        alive=alive.session.turn_id if alive.session else None,
    )
    assert await close_stale_turns(store.database, 30) == 1
    assert await store.limits.allowance(ALICE) == Allowance(1, 100, 0)


async def test_what_was_held_for_a_turn_that_never_was_is_free_after_a_while(store: DatabaseStore) -> None:
    running, young = await opened(store, "a"), await hold(store, tokens=7, tokens_per_day=1000)
    old = [await hold(store, owner, tokens=1, tokens_per_day=1000) for owner in ("alice", "alice", "bob")]
    for turn in [*old, running.session.turn_id if running.session else None]:
        await change(
            store,
            "UPDATE chat_allowances SET holds = jsonb_set(holds, ARRAY[:turn, 'at'], to_jsonb(0)) WHERE holds ? :turn",
            turn=str(turn),
        )
    await release_dead_holds(store.database, 90)
    assert await store.limits.allowance(ALICE) == Allowance(2, 107, 0)
    assert await store.limits.allowance({"user_id": "bob"}) == Allowance(0, 0, 0)
    (row,) = await stored(store, "SELECT holds::text AS holds FROM chat_allowances WHERE user_id = 'alice'")
    assert str(young) in row["holds"]
