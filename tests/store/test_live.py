"""The running turn of a thread, as another process finds, polls and stops it."""

import re
from datetime import datetime
from uuid import uuid4

import pytest
from chatkit.types import AssistantMessageItem, HiddenContextItem

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.live import Position, RunningTurnRow
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import Checkpoint
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import live
from tests.store.test_partials import append, entry, grown, in_turn
from tests.support.chat import stored
from tests.support.items import NAIVE, assistant_message, thread, user_message
from tests.support.owners import run_apart


@pytest.fixture(params=[False, True], ids=["together", "apart"], autouse=True)
def apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all owners at once, and for each of them, as in a cluster; the SQL of both runs on one PostgreSQL."""
    if request.param and request.node.get_closest_marker("one_postgres") is None:
        run_apart(monkeypatch)


async def found(store: DatabaseStore, user: str = "alice") -> RunningTurnRow:
    running = await store.live.find("t", RequestContext(user), stale_seconds=60)
    assert running is not None
    return running


def at(context: RequestContext, sequence: int = 0, seen_at: datetime | None = None) -> Position:
    assert context.session is not None
    return Position(context.user_id, session_uuid("t"), context.session.turn_id, sequence, seen_at)


async def test_a_turn_is_found_while_it_runs(store: DatabaseStore) -> None:
    alice = RequestContext("alice")
    with pytest.raises(NotFound):
        await store.live.find("t", alice, stale_seconds=60)
    context = await in_turn(store)
    assert context.session is not None
    assert (await found(store)).turn_id == context.session.turn_id
    with pytest.raises(NotFound):
        await store.live.find("t", RequestContext("bob"), stale_seconds=60)
    # A process that shows no sign of life runs nothing.
    assert await store.live.find("t", alice, stale_seconds=0) is None
    await store.turns.finish(context, Outcome("completed"))
    assert await store.live.find("t", alice, stale_seconds=60) is None


async def test_its_items_are_those_of_the_turn_with_the_text_so_far(store: DatabaseStore) -> None:
    await grown(store)
    message, answer = await store.live.items(await found(store), RequestContext("alice"))
    assert (message.item.id, message.is_partial) == ("m", False)
    assert isinstance(answer.item, AssistantMessageItem)
    assert (answer.item.content[0].text, answer.is_partial) == ("Once upon a time", True)
    assert await store.live.items(await found(store), RequestContext("bob")) == []


async def test_a_poll_has_only_what_is_new(store: DatabaseStore) -> None:
    alices, bobs = await grown(store), await grown(store, "bob")
    first = await store.live.poll([at(alices), at(bobs, sequence=2)])
    assert [item.text for item in first[0].entries] == [" upon", " a time"]
    assert first[1].entries == []
    seen = [at(alices, 2, first[0].changed_at), at(bobs, 2, first[1].changed_at)]
    assert await store.live.poll(seen) == {}
    await append(store, bobs, entry(3, 16, "!"))
    second = await store.live.poll(seen)
    assert {number: [item.text for item in news.entries] for number, news in second.items()} == {1: ["!"]}
    await store.add_thread_item("t", assistant_message("t", "a", "Once."), alices)
    assert [*await store.live.poll(seen)] == [0, 1]
    await store.turns.finish(alices, Outcome("failed", error_code="model_busy"))
    ended = (await store.live.poll(seen))[0]
    assert (ended.state, ended.error_code) == ("failed", "model_busy")
    await store.delete_thread("t", RequestContext("alice"))
    assert (await store.live.poll(seen))[0].state is None


async def test_who_asks_to_stop_is_heard_by_the_process_that_runs_the_turn(store: DatabaseStore) -> None:
    context, others = await in_turn(store), await in_turn(store, "bob")
    assert context.session is not None
    with pytest.raises(NotFound):
        await store.live.request_stop("t", RequestContext("mallory"))
    checkpoints = [Checkpoint(context), Checkpoint(others)]
    assert (await store.partials.checkpoint(checkpoints, with_heartbeat=False)).lost == {}
    assert await store.live.request_stop("t", RequestContext("alice")) == context.session.turn_id
    asked = await store.partials.checkpoint(checkpoints, with_heartbeat=False)
    assert asked.lost == {context.session.turn_id: None}
    await store.turns.finish(context, Outcome("stopped"))
    assert await store.live.request_stop("t", RequestContext("alice")) is None


async def peek(store: DatabaseStore) -> None:
    """Mallory follows Alice's turn, which only a mistake of ours could let them do; everybody has a thread ``t``."""
    alices, _ = await grown(store), await grown(store, "mallory")
    assert alices.session is not None
    foreign = Position("mallory", session_uuid("t"), alices.session.turn_id, sequence=0, seen_at=None)
    nobodys = Position("mallory", session_uuid("t"), uuid4(), sequence=0, seen_at=None)
    polled = await store.live.poll([foreign, nobodys])
    assert polled[0] == polled[1], "a stranger's poll differs from that of an absent turn"
    assert polled[0].entries == []
    assert (await stored(store, "SELECT count(*) AS n FROM chat_partial_log"))[0]["n"] == 4


async def test_a_stranger_polls_nothing(store: DatabaseStore) -> None:
    await peek(store)


@pytest.mark.parametrize("alias", ["t", "l"])
@pytest.mark.one_postgres
async def test_a_poll_that_forgets_the_owner_is_noticed(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    comparison = f"{alias}.user_id = f.user_id AND "
    assert comparison in live.POLL_TURNS.driver_sql
    forgetful = re.sub(re.escape(comparison), "", live.POLL_TURNS.driver_sql)
    monkeypatch.setattr(live.POLL_TURNS, "driver_sql", forgetful)
    with pytest.raises(AssertionError):
        await peek(store)


async def test_what_a_retry_replaces_are_the_items_that_a_client_has(store: DatabaseStore) -> None:
    alice = RequestContext("alice")
    await store.save_thread(thread("t"), alice)
    hidden = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="for the model")
    for item in (user_message("t", "m"), hidden, assistant_message("t", "old")):
        await store.add_thread_item("t", item, alice)
    await store.turns.open_retry("t", "m", RequestContext("alice", session=WriteSession("threads.retry_after_item")))
    assert await store.live.replaced_item_ids(await found(store), alice) == ["old"]
    assert await store.live.replaced_item_ids(await found(store), RequestContext("bob")) == []
