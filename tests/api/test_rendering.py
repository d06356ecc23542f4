"""How much Markdown of one user is rendered for the page in an iframe."""

import asyncio

import pytest

from chatkit_postgres.errors import TooManyRequests, Unavailable
from chatkit_postgres.wiring import rendering
from chatkit_postgres.wiring.rendering import RenderLimits


async def test_texts_of_one_user_are_rendered_one_after_the_other_and_of_two_beside_each_other() -> None:
    limits, running, most = RenderLimits(), dict[str, int](), dict[str, int]()

    async def render(user: str) -> None:
        async with limits.rendering(user) as spend:
            running[user] = running.get(user, 0) + 1
            most["all"] = max(most.get("all", 0), sum(running.values()))
            most[user] = max(most.get(user, 0), running[user])
            await asyncio.sleep(0.005)
            running[user] -= 1
            await spend(0.001)

    await asyncio.gather(*(render(user) for user in ("alice", "bob") for _ in range(20)))
    assert most == {"alice": 1, "bob": 1, "all": 2}
    assert len(limits._turns) == 0


async def test_who_has_spent_the_minute_waits_and_others_do_not() -> None:
    limits = RenderLimits()
    # More than the minute has, at once: it is all counted.
    async with limits.rendering("alice") as spend:
        await spend(rendering.MILLISECONDS_PER_MINUTE / 1000 - 0.5)
    async with limits.rendering("alice") as spend:
        await spend(100)
    with pytest.raises(TooManyRequests):
        async with limits.rendering("alice"):
            pass
    async with limits.rendering("bob") as spend:
        await spend(0)


async def test_who_asks_for_too_many_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, held = RenderLimits(), asyncio.Event()

    async def hold(user: str) -> None:
        async with limits.rendering(user):
            await held.wait()

    waiting = [asyncio.create_task(hold("alice")) for _ in range(100)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await hold("alice")
    monkeypatch.setattr(limits._waiting, "_altogether", 100)
    with pytest.raises(Unavailable):
        await hold("bob")
    held.set()
    await asyncio.gather(*waiting)
