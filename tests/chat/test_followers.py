"""Followers of one process, who are polled together, and of whom none disturbs another."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from chatkit.types import StreamOptions, ThreadStreamEvent
from sqlalchemy import text

from chatkit_postgres.chat.turns.live import Follower, Followers
from chatkit_postgres.chat.wire import to_json
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.outcome import Outcome
from tests.store.test_partials import append, entry, grown
from tests.support.items import assistant_message
from tests.support.sql import sql_connection


def encoded(event: ThreadStreamEvent, _: RequestContext) -> bytes:
    return to_json(event) + b"\n"


@pytest.fixture
async def followers(store: DatabaseStore) -> AsyncIterator[Followers]:
    made = Followers(store, encoded, lambda *_: StreamOptions(allow_cancel=True), is_draining=lambda: False)
    yield made
    for follower in list(made._followers):
        made.leave(follower)


async def follow(followers: Followers, store: DatabaseStore, user: str) -> Follower:
    context = RequestContext(user)
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


async def test_a_follower_that_does_not_read_is_not_polled(store: DatabaseStore, followers: Followers) -> None:
    context = await grown(store)
    follower = await follow(followers, store, "alice")
    for number in range(3):
        await append(store, context, entry(3 + number, 16 + number, "!"))
        await asyncio.sleep(0.4)
    assert not follower.is_waiting
    assert follower.position.sequence == 0
    await store.add_thread_item("t", assistant_message("t", "a", "Once upon a time!!!"), context)
    await read_until(follower, b"time!!!")
