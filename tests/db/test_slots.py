"""The slots of a pool of connections, and who gets the next one."""

import asyncio
from dataclasses import replace

import pytest

from chatkit_postgres.db import BACKGROUND, OVERDUE, TURN, Database, wait_policy
from chatkit_postgres.db.slots import REQUEST, Slots, WaitPolicy
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store import DatabaseStore
from tests.support.items import thread


async def served(slots: Slots, *waiters: tuple[str, WaitPolicy], hold_seconds: float = 0) -> list[str]:
    """The order in which those who wait get their places, while all places are held for a moment."""
    order: list[str] = []

    async def ask(name: str, how: WaitPolicy) -> None:
        wait_policy.set(how)
        await slots.acquire()
        order.append(name)
        slots.release()

    await slots.acquire()
    asking = []
    for name, how in waiters:
        asking.append(asyncio.create_task(ask(name, how)))
        await asyncio.sleep(0.01)
    await asyncio.sleep(hold_seconds)
    slots.release()
    await asyncio.gather(*asking)
    return order


async def test_beginnings_and_ends_go_before_checkpoints() -> None:
    order = await served(Slots(1), ("checkpoint", BACKGROUND), ("final", TURN), ("list", REQUEST))
    assert order == ["final", "list", "checkpoint"]


async def test_a_checkpoint_waits_no_longer_than_text_may_be_lost() -> None:
    early = ("checkpoint", replace(BACKGROUND, yield_seconds=0.05))
    finals = [(f"final {number}", TURN) for number in range(10)]
    order = await served(Slots(1), early, *finals)
    assert order.index("checkpoint") <= 6


async def test_an_overdue_checkpoint_goes_before_those_who_wait() -> None:
    finals = [(f"final {number}", TURN) for number in range(10)]
    order = await served(Slots(1), *finals, ("checkpoint", OVERDUE))
    assert order[0] == "checkpoint"


async def test_a_request_gives_up_and_a_turn_does_not() -> None:
    slots = Slots(1)
    await slots.acquire()
    wait_policy.set(WaitPolicy(seconds=0.05))
    with pytest.raises(TimeoutError):
        await slots.acquire()
    wait_policy.set(TURN)
    patient = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0.2)
    assert not patient.done()
    slots.release()
    await patient


async def test_a_place_that_is_granted_to_somebody_who_leaves_is_passed_on() -> None:
    slots = Slots(1)
    await slots.acquire()
    leaving, staying = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    # It was granted the place, and has not run since.
    leaving.cancel()
    async with asyncio.timeout(1):
        await staying
    slots.release()
    async with asyncio.timeout(1):
        await slots.acquire()


async def test_many_who_come_and_go_leave_every_place_free() -> None:
    slots = Slots(3)

    async def work(number: int) -> None:
        await slots.acquire()
        try:
            await asyncio.sleep(0.001 * (number % 5))
        finally:
            slots.release()

    tasks = [asyncio.create_task(work(number)) for number in range(200)]
    await asyncio.sleep(0.005)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(1):
        for _ in range(3):
            await slots.acquire()
    wait_policy.set(WaitPolicy(seconds=0.01))
    with pytest.raises(TimeoutError):
        await slots.acquire()


async def test_a_turn_outlasts_a_pool_that_is_busy(database: Database) -> None:
    store = DatabaseStore(Database(database.url, pool_size=1))

    class Alice:
        user_id = "alice"

    async def hold(connection: object) -> None:
        await asyncio.sleep(0.5)

    holding = asyncio.create_task(store.database._connections.use(hold))
    await asyncio.sleep(0)
    wait_policy.set(WaitPolicy(seconds=0.1))
    with pytest.raises(DatabaseUnavailable):
        await store.save_thread(thread("t"), Alice())
    wait_policy.set(TURN)
    await store.save_thread(thread("t"), Alice())
    await holding
    await store.close()
