"""Runs that wait for approvals, in the store: each answer, beginning and take-over counts once."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from chatkit.types import WidgetItem
from chatkit.widgets import DynamicWidgetRoot
from sqlalchemy import text

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotFound, Superseded
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.approvals import AskedCall, PausedRun, closed_calls_of
from chatkit_postgres.store.caller import required_session
from chatkit_postgres.store.outcome import EndState, Outcome
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql.approvals import MAX_TAKEOVERS
from chatkit_postgres.store.tool_calls import ToolCall
from tests.support.items import NAIVE, thread, user_message
from tests.support.sql import sql_connection

# Keeps nothing of what it has loaded, as a RequestContext does.
ALICE = SimpleNamespace(user_id="alice")


def turn(operation: str = "threads.custom_action") -> RequestContext:
    return RequestContext(user_id="alice", session=WriteSession(operation))


def card(item_id: str, says: str = "waiting") -> WidgetItem:
    widget = DynamicWidgetRoot.model_validate({"type": "Card", "children": [{"type": "Text", "value": says}]})
    return WidgetItem(
        id=item_id, thread_id="t", created_at=datetime.fromisoformat(NAIVE.isoformat()), widget=widget, copy_text=says
    )


async def asking(store: DatabaseStore, *item_ids: str, ends_as: EndState | None = "waiting") -> RequestContext:
    await store.save_thread(thread("t"), ALICE)
    context = turn("threads.add_user_message")
    await store.add_thread_item("t", user_message("t", "question", "Hello"), context)
    calls = [
        AskedCall(item_id, number, f"call {number}", agent="A", tool="pay", label="Pay", arguments="{}")
        for number, item_id in enumerate(item_ids)
    ]
    await store.approvals.pause("t", "{}", calls, context)
    for item_id in item_ids:
        await store.add_thread_item("t", card(item_id), context)
    if ends_as is not None:
        await store.turns.finish(context, Outcome(ends_as))
    return context


async def answered(store: DatabaseStore, item_id: str, context: RequestContext | None = None) -> PausedRun | None:
    return await store.approvals.answer("t", card(item_id, "approved"), "approved", context or turn(), {"role": "x"})


async def test_the_last_answer_and_only_it_goes_on(store: DatabaseStore) -> None:
    await asking(store, "a", "b")
    first, second = turn(), turn()
    run = await answered(store, "a", first)
    assert run is not None
    assert run.resumed_by is None
    assert await answered(store, "a") is None
    run = await answered(store, "b", second)
    assert run is not None
    assert run.resumed_by == required_session(second).turn_id
    assert [call.answer for call in run.calls] == ["approved", "approved"]
    assert await answered(store, "b") is None


async def test_an_answer_that_is_sent_again_after_a_lost_connection_is_the_same(store: DatabaseStore) -> None:
    await asking(store, "a")
    context = turn()
    runs = [await answered(store, "a", context) for _ in range(2)]
    assert runs[0] == runs[1] is not None
    item = await store.load_item("t", "a", ALICE)
    assert isinstance(item, WidgetItem)
    assert item.copy_text == "approved"


async def test_a_repeated_answer_does_not_take_a_run_from_the_turn_of_the_last_one(store: DatabaseStore) -> None:
    await asking(store, "a", "b")
    first, last = turn(), turn()
    await answered(store, "a", first)
    await answered(store, "b", last)
    assert await answered(store, "a", first) is None
    assert await store.approvals.begin_call("t", "a", last)


async def test_an_answer_that_is_not_the_last_leaves_the_thread_to_its_turn(store: DatabaseStore) -> None:
    asked = await asking(store, "a", "b", ends_as=None)
    await answered(store, "a")
    await store.turns.heartbeat(asked)
    await answered(store, "b")
    with pytest.raises(Superseded):
        await store.turns.heartbeat(asked)


async def test_a_run_that_asks_again_takes_the_place_of_the_one_before(store: DatabaseStore) -> None:
    """Also if the turn that asks again dies before its end: what was done is not done again."""
    await asking(store, "a")
    context = turn()
    await answered(store, "a", context)
    again = AskedCall("b", 0, "call", agent="A", tool="pay", label="Pay", arguments="{}")
    await store.approvals.pause("t", "{}", [again], context)
    await store.add_thread_item("t", card("b"), context)
    assert await store.approvals.find("t", "a", ALICE) is None
    last = turn()
    assert await answered(store, "b", last) is not None
    await store.turns.finish(context, Outcome("interrupted"))
    assert await store.approvals.abandoned() == []
    assert await store.approvals.begin_call("t", "b", last)


async def test_a_turn_waits_for_one_run(store: DatabaseStore) -> None:
    asked = await asking(store, "a", ends_as=None)
    call = AskedCall("b", 0, "call", agent="A", tool="pay", label="Pay", arguments="{}")
    with pytest.raises(RuntimeError, match="one run"):
        await store.approvals.pause("t", "{}", [call], asked)
    run = await store.approvals.find("t", "a", ALICE)
    assert run is not None
    # Sent again after a lost connection, it is the same one.
    await store.approvals.pause("t", "{}", run.calls, asked)


async def test_nobody_takes_a_run_over_while_another_turn_runs(store: DatabaseStore) -> None:
    asked = await asking(store, "a")
    context, newer = turn(), turn()
    await answered(store, "a", context)
    await store.turns.finish(context, Outcome("interrupted"))
    await store.turns.open("t", newer)
    assert await store.approvals.abandoned() == []
    assert await store.approvals.take_over("t", required_session(asked).turn_id, turn()) is None
    await store.turns.finish(newer, Outcome("completed"))
    assert len(await store.approvals.abandoned()) == 1
    assert await store.approvals.take_over("t", required_session(asked).turn_id, turn()) is not None


async def test_a_call_begins_once_and_only_in_the_turn_that_goes_on(store: DatabaseStore) -> None:
    await asking(store, "a")
    context, other = turn(), turn()
    await answered(store, "a", context)
    assert not await store.approvals.begin_call("t", "a", other)
    assert await store.approvals.begin_call("t", "a", context)
    await store.approvals.end_call("t", "a", "by another", other)
    await store.approvals.end_call("t", "a", "nul \x00 and \ud800", context)
    run = await store.approvals.find("t", "a", ALICE)
    assert run is not None
    assert run.call_of("a").output == "nul \ufffd and \ufffd"


async def test_a_turn_that_has_lost_its_thread_begins_no_call(store: DatabaseStore) -> None:
    await asking(store, "a")
    context = turn()
    await answered(store, "a", context)
    newer = turn("threads.add_user_message")
    await store.add_thread_item("t", user_message("t", "newer", "Stop"), newer)
    assert [call.item_id for call in closed_calls_of(required_session(newer))] == ["a"]
    assert not await store.approvals.begin_call("t", "a", context)
    assert await store.approvals.find("t", "a", ALICE) is None


async def test_a_refused_call_never_begins(store: DatabaseStore) -> None:
    await asking(store, "a")
    context = turn()
    await store.approvals.answer("t", card("a"), "refused", context, {})
    assert not await store.approvals.begin_call("t", "a", context)


async def test_an_interrupted_run_is_taken_over_once(store: DatabaseStore) -> None:
    asked = await asking(store, "a")
    context = turn()
    await answered(store, "a", context)
    asked_by = required_session(asked).turn_id
    assert await store.approvals.abandoned() == []
    assert await store.approvals.take_over("t", asked_by, turn()) is None
    await store.turns.finish(context, Outcome("interrupted"))
    (abandoned,) = await store.approvals.abandoned()
    assert (abandoned.owner, abandoned.thread_id, abandoned.asked_by) == ("alice", "t", asked_by)
    assert abandoned.claims == {"role": "x"}
    first, second = turn(), turn()
    assert await store.approvals.take_over("t", asked_by, first) is not None
    assert await store.approvals.take_over("t", asked_by, first) is not None
    assert await store.approvals.take_over("t", asked_by, second) is None
    assert await store.approvals.abandoned() == []


async def test_a_run_that_ends_its_processes_is_not_taken_over_for_ever(store: DatabaseStore) -> None:
    asked = await asking(store, "a")
    context = turn()
    await answered(store, "a", context)
    for _ in range(MAX_TAKEOVERS):
        await store.turns.finish(context, Outcome("interrupted"))
        assert [run.is_hopeless for run in await store.approvals.abandoned()] == [False]
        context = turn()
        assert await store.approvals.take_over("t", required_session(asked).turn_id, context) is not None
    await store.turns.finish(context, Outcome("interrupted"))
    (run,) = await store.approvals.abandoned()
    assert run.is_hopeless
    assert [call.item_id for call in await store.approvals.give_up("t", run.asked_by, ALICE)] == ["a"]
    assert await store.approvals.give_up("t", run.asked_by, ALICE) == []
    assert await store.approvals.abandoned() == []


async def test_runs_of_disabled_users_and_locked_threads_are_left_alone(store: DatabaseStore) -> None:
    await asking(store, "a")
    context = turn()
    await answered(store, "a", context)
    await store.turns.finish(context, Outcome("interrupted"))
    async with sql_connection(store.database) as connection:
        await connection.execute(text("UPDATE chat_users SET disabled_at = now()"))
    assert await store.approvals.abandoned() == []
    async with sql_connection(store.database) as connection:
        await connection.execute(text("UPDATE chat_users SET disabled_at = NULL"))
        await connection.execute(text("""UPDATE chat_sessions SET status = '{"type": "locked"}'"""))
    assert await store.approvals.abandoned() == []


@pytest.mark.parametrize("state", ["completed", "failed", "stopped", "superseded", "interrupted"])
async def test_a_question_of_a_turn_that_did_not_end_as_waiting_is_gone(store: DatabaseStore, state: EndState) -> None:
    await asking(store, "a", ends_as=state)
    assert await store.approvals.find("t", "a", ALICE) is None
    assert await store.approvals.waiting(ALICE, limit=10) == []


async def test_a_question_of_a_dead_process_is_gone(store: DatabaseStore) -> None:
    await asking(store, "a", ends_as=None)
    async with sql_connection(store.database) as connection:
        await connection.execute(text("UPDATE chat_turns SET heartbeat_at = now() - interval '1 hour'"))
    await store.turns.close_stale("t", ALICE, stale_seconds=60)
    assert await store.approvals.find("t", "a", ALICE) is None


async def test_a_press_before_the_asking_turn_has_ended_goes_on(store: DatabaseStore) -> None:
    asked = await asking(store, "a", ends_as=None)
    context = turn()
    run = await answered(store, "a", context)
    # The first turn loses its thread, and ends.
    await store.turns.finish(asked, Outcome("superseded"))
    assert run is not None
    assert await store.approvals.begin_call("t", "a", context)


async def test_threads_that_wait_are_the_owners_own(store: DatabaseStore) -> None:
    await asking(store, "a")
    (waiting,) = await store.approvals.waiting(ALICE, limit=10)
    assert waiting.thread_id == "t"
    assert await store.approvals.waiting(SimpleNamespace(user_id="mallory"), limit=10) == []
    await answered(store, "a")
    assert await store.approvals.waiting(ALICE, limit=10) == []


async def test_a_run_is_not_saved_without_its_thread(store: DatabaseStore) -> None:
    await asking(store, "a")
    call = AskedCall("b", 0, "call", agent="A", tool="pay", label="Pay", arguments="{}")
    with pytest.raises(Superseded):
        await store.approvals.pause("t", "{}", [call], turn())
    with pytest.raises(NotFound):
        await store.approvals.pause("absent", "{}", [call], turn())
    with pytest.raises(Superseded):
        await store.tool_calls.add("t", [ToolCall("look", "{}", "seen")], turn())
    with pytest.raises(NotFound):
        await store.tool_calls.add("absent", [ToolCall("look", "{}", "seen")], turn())


@pytest.mark.parametrize(
    ("given", "saved"),
    [
        ("", "{}"),
        ('{"a": 1}', '{"a": 1}'),
        ("not json", '{"text": "not json"}'),
        ("[1]", '{"text": "[1]"}'),
        ('{"a": "\\u0000"}', None),
        ("\x00\ud800", '{"text": "\ufffd\ufffd"}'),
    ],
)
async def test_arguments_are_saved_as_an_object(store: DatabaseStore, given: str, saved: str | None) -> None:
    await store.save_thread(thread("t"), ALICE)
    context = turn("threads.add_user_message")
    await store.add_thread_item("t", user_message("t", "question", "Hello"), context)
    await store.tool_calls.add("t", [ToolCall("look\x00", given, "out \x00")], context)
    rows: Any
    async with sql_connection(store.database) as connection:
        rows = (await connection.execute(text("SELECT name, arguments, output FROM chat_tool_calls"))).all()
    assert rows[0].output == "out \ufffd"
    assert rows[0].name == "look\ufffd"
    if saved is not None:
        assert rows[0].arguments == saved
