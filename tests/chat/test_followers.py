"""Followers of one process, who are polled together, and of whom none disturbs another."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from chatkit.types import StreamOptions, ThreadStreamEvent
from sqlalchemy import text

from chatkit_postgres.chat.turns.live import Follower, Followers
from chatkit_postgres.chat.wire import to_json
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.caller import Caller
from chatkit_postgres.store.live import LiveItem, News, Position, RunningTurnRow
from chatkit_postgres.store.outcome import Outcome
from tests.store.test_partials import append, entry, grown
from tests.support.items import assistant_message
from tests.support.sql import sql_connection


def encoded(event: ThreadStreamEvent, _: RequestContext) -> bytes:
    return to_json(event) + b"\n"


@pytest.fixture
async def followers(store: DatabaseStore) -> AsyncIterator[Followers]:
    is_ending: list[bool] = []
    made = Followers(store, encoded, lambda *_: StreamOptions(allow_cancel=True), is_draining=lambda: is_ending != [])
    yield made
    is_ending.append(True)


async def follow(followers: Followers, store: DatabaseStore, user: str, public_url: str = "") -> Follower:
    context = RequestContext(user, public_url=public_url)
    turn = await store.live.find("t", context, stale_seconds=60)
    assert turn is not None
    return await followers.follow(turn, context)


async def read_until(follower: Follower, words: bytes) -> bytes:
    received = b""
    async with asyncio.timeout(5):
        while words not in received:
            received += await follower.read(1) or b""
    return received


async def test_a_follower_that_joins_while_the_last_one_leaves_hears_of_the_turn(
    store: DatabaseStore, followers: Followers
) -> None:
    context = await grown(store)
    leaving = await follow(followers, store, "alice")
    await asyncio.sleep(0)
    joining = asyncio.create_task(follow(followers, store, "alice"))
    await asyncio.sleep(0)
    followers.leave(leaving)
    follower = await joining
    await append(store, context, entry(3, 16, ", there was"))
    await read_until(follower, b"there was")
    await store.turns.finish(context, Outcome("completed"))
    async with asyncio.timeout(5):
        while await follower.read(1) != b"":
            pass


async def test_a_follower_who_joins_at_the_end_reads_it_as_the_first_one_does(
    store: DatabaseStore, followers: Followers
) -> None:
    context, alice = await grown(store), RequestContext("alice")
    first = await follow(followers, store, "alice")
    turn = await store.live.find("t", alice, stale_seconds=60)
    assert turn is not None
    # Between the look at the turn and the join.
    await store.turns.finish(context, Outcome("failed", error_code="turn_timed_out"))
    second = await followers.follow(turn, alice)
    for follower in (first, second):
        await read_until(follower, b'"type":"error"')


async def test_an_entry_that_cannot_be_read_ends_nobody_elses_stream(
    store: DatabaseStore, followers: Followers
) -> None:
    """As newer code may write it during an upgrade."""
    alices, bobs = await grown(store), await grown(store, "bob")
    alice, bob = await follow(followers, store, "alice"), await follow(followers, store, "bob")
    await read_until(alice, b"Once upon a time")
    await append(store, alices, entry(3, 16, "!"))
    async with sql_connection(store.database) as connection:
        strange = """UPDATE chat_partial_log SET annotation = '{"type": "hologram"}', start = 0
                     WHERE user_id = 'alice' AND sequence = 3"""
        await connection.execute(text(strange))
    await append(store, bobs, entry(3, 16, ", there was"))
    await read_until(bob, b"there was")
    await append(store, alices, entry(4, 16, " And then"))
    await read_until(alice, b"And then")


async def test_a_follower_that_reads_late_receives_the_text_in_one_piece(
    store: DatabaseStore, followers: Followers
) -> None:
    context = await grown(store)
    prompt, late = await follow(followers, store, "alice"), await follow(followers, store, "alice")
    for number in range(3):
        await append(store, context, entry(3 + number, 16 + number, "!"))
        await read_until(prompt, b"!")
    # The stream's options and both messages so far; then one delta for all that was appended.
    assert (await late.read(1) or b"").count(b"\n") == 3
    assert (await late.read(1) or b"").count(b"\n") == 1
    await store.add_thread_item("t", assistant_message("t", "a", "Once upon a time!!!"), context)
    await read_until(late, b"time!!!")


async def test_a_turn_is_polled_once_for_all_its_followers(
    store: DatabaseStore, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled: list[int] = []
    poll = store.live.poll

    async def counted(positions: Sequence[Position]) -> dict[int, News]:
        polled.append(len(positions))
        return await poll(positions)

    monkeypatch.setattr(store.live, "poll", counted)
    alices, _ = await grown(store), await grown(store, "bob")
    hers = [await follow(followers, store, "alice") for _ in range(20)]
    elsewhere = await follow(followers, store, "alice", public_url="https://other.example")
    his = await follow(followers, store, "bob")
    polled.clear()
    await append(store, alices, entry(3, 16, ", there was"))
    for follower in (*hers, elsewhere):
        await read_until(follower, b"there was")
    # Alice's turn at each of two addresses, and Bob's.
    assert set(polled) == {3}
    for follower in (*hers, his):
        followers.leave(follower)
    polled.clear()
    await append(store, alices, entry(4, 27, " a user"))
    await read_until(elsewhere, b"a user")
    assert set(polled) == {1}
    followers.leave(elsewhere)


async def test_who_joins_while_all_others_leave_and_another_joins_is_served(
    store: DatabaseStore, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await grown(store)
    first = await follow(followers, store, "alice")
    has_polled, may_go_on = asyncio.Event(), asyncio.Event()
    poll = store.live.poll

    async def slow(positions: Sequence[Position]) -> dict[int, News]:
        news = await poll(positions)
        has_polled.set()
        await may_go_on.wait()
        return news

    monkeypatch.setattr(store.live, "poll", slow)
    joining = asyncio.create_task(follow(followers, store, "alice"))
    await has_polled.wait()
    followers.leave(first)
    monkeypatch.undo()
    third = await follow(followers, store, "alice")
    may_go_on.set()
    second = await joining
    await append(store, context, entry(3, 16, ", there was"))
    for follower in (second, third):
        await read_until(follower, b"there was")
    await store.turns.finish(context, Outcome("completed"))
    for follower in (second, third):
        async with asyncio.timeout(5):
            while await follower.read(1) != b"":
                pass


async def test_late_news_do_not_take_text_back(store: DatabaseStore, followers: Followers) -> None:
    context = await grown(store)
    follower = await follow(followers, store, "alice")
    await read_until(follower, b"Once upon a time")
    followed = follower.followed
    (news,) = (await store.live.poll([followed.position])).values()
    items, is_reading, may_go_on = store.live.items, asyncio.Event(), asyncio.Event()

    async def slow(turn: RunningTurnRow, caller: Caller) -> list[LiveItem]:
        found = await items(turn, caller)
        is_reading.set()
        await may_go_on.wait()
        return found

    # A change of the thread is being read when the next text is taken.
    changed = replace(news, changed_at=datetime.now(UTC), entries=[])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store.live, "items", slow)
        reading = asyncio.create_task(followed.take(changed))
        await is_reading.wait()
    await append(store, context, entry(3, 16, ", there was"))
    (newer,) = (await store.live.poll([followed.position])).values()
    taking = asyncio.create_task(followed.take(replace(newer, changed_at=changed.changed_at)))
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(reading, taking)
    await append(store, context, entry(4, 27, " a user"))
    received = await read_until(follower, b"a user")
    assert (b"there was" in received, b"thread.item.replaced" in received) == (True, False)


async def test_a_hook_that_fails_leaves_nothing_behind(store: DatabaseStore) -> None:
    def failing(*_: object) -> StreamOptions:
        raise ValueError("a team's mistake")

    await grown(store)
    followers = Followers(store, encoded, failing, is_draining=lambda: False)
    for _ in range(3):
        with pytest.raises(ValueError, match="a team's mistake"):
            await follow(followers, store, "alice")
    assert followers.turns == 0


async def test_who_joins_later_has_at_once_what_is_stored(store: DatabaseStore, followers: Followers) -> None:
    """A page that is reloaded must not show less than before."""
    context = await grown(store)
    first = await follow(followers, store, "alice")
    await append(store, context, entry(3, 16, ", there was"))
    await read_until(first, b"Once upon a time")
    second = await follow(followers, store, "alice")
    beginning = await second.read(1) or b""
    assert b"stream_options" in beginning
    assert b"Once upon a time, there was" in beginning
    assert b"delta" not in beginning
    await append(store, context, entry(4, 27, " a user"))
    for follower in (first, second):
        assert (await read_until(follower, b"a user")).count(b" a user") == 1
    followers.leave(first)
    followers.leave(second)
