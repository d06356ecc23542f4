"""What a turn costs in statements, by name; and that a new thread is stored with its message."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from chatkit_postgres.chat.turns import checkpoints
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.chat.turns.replay import Replay
from chatkit_postgres.chat.turns.running_turn import no_readers
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Row, Statement
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql.threads import BEGIN_THREAD
from tests.support.chat import (
    Chat,
    Scripted,
    add_message,
    create,
    demo_assistant,
    message,
    stored,
)
from tests.support.sql import Statements


@pytest.fixture
async def demo(store: DatabaseStore) -> AsyncIterator[Chat]:
    chat = Chat(store, demo_assistant())
    yield chat
    await chat.runner.drain(0)


class TestStatements:
    @pytest.fixture(autouse=True)
    def without_checkpoints(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A turn that takes long enough has them."""
        monkeypatch.setattr(checkpoints, "STEP_SECONDS", 60)

    async def test_an_ordinary_turn_is_six_statements(self, demo: Chat) -> None:
        thread_id = (await demo.events(create("Hello")))[0]["thread"]["id"]
        seen = Statements(demo.store.database)
        await demo.events(add_message(thread_id, "Hello again"))
        assert seen.names == [
            "load_thread",
            "append_item",  # the user's message, which opens the turn
            "load_newest_items",  # the history
            "list_items_newest_first",  # the SDK's look at the last two items
            "append_item",  # the answer
            "finish_turn",
        ]

    async def test_a_call_of_a_tool_costs_two_statements(self, demo: Chat) -> None:
        thread_id = (await demo.events(create("Hello")))[0]["thread"]["id"]
        seen = Statements(demo.store.database)
        await demo.events(add_message(thread_id, "What time is it?"))
        assert Counter(seen.names) == {
            "load_thread": 1,
            "append_item": 3,  # the message, the workflow that shows the call, the answer
            "load_newest_items": 1,
            "list_items_newest_first": 1,
            "add_tool_calls": 1,
            "finish_turn": 1,
        }

    async def test_a_new_thread_costs_one_statement_and_its_title_and_has_no_history(self, demo: Chat) -> None:
        seen = Statements(demo.store.database)
        await demo.events(create("Hello"))
        assert Counter(seen.names) == {
            "begin_thread": 1,  # with its message
            "append_item": 1,
            "list_items_newest_first": 1,
            "update_thread": 1,
            "finish_turn": 1,
        }

    async def test_a_long_thread_costs_no_more_statements(self, demo: Chat) -> None:
        thread_id = (await demo.events(create("Hello")))[0]["thread"]["id"]
        session = RequestContext(user_id="alice")
        for number in range(150):
            await demo.store.add_thread_item(thread_id, message(f"m{number}", "x"), session)
        seen = Statements(demo.store.database)
        await demo.events(add_message(thread_id, "Hello again"))
        assert len(seen.names) == 6

    async def test_a_new_thread_is_never_without_its_message(self, demo: Chat) -> None:
        running = await demo.start(create("Hello"))
        # As soon as there is a first event.
        reader = demo.runner.join(running)
        demo.runner.leave(running, reader)
        await asyncio.wait([running.task])
        (message,) = await stored(demo.store, "SELECT content FROM chat_messages WHERE sender_type = 'user'")
        assert message["content"] == "Hello"

    async def test_a_thread_that_cannot_be_stored_is_an_error_before_any_event(
        self, demo: Chat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = Database.run

        async def fails(database: Database, owner: str, statement: Statement, **parameters: Any) -> Sequence[Row]:
            if statement is BEGIN_THREAD:
                raise DatabaseUnavailable
            return await run(database, owner, statement, **parameters)

        monkeypatch.setattr(Database, "run", fails)
        with pytest.raises(DatabaseUnavailable):
            await demo.start(create("Hello"))
        assert await stored(demo.store, "SELECT * FROM chat_sessions") == []

    async def test_one_row_for_each_item_and_one_turn(self, demo: Chat) -> None:
        await demo.events(create("Hello"))
        rows = await stored(demo.store, "SELECT * FROM chat_messages ORDER BY position")
        senders = [(row["sender_type"], row["sender_name"]) for row in rows]
        assert senders == [("user", None), ("assistant", "Assistant")]
        (turn,) = await stored(demo.store, "SELECT * FROM chat_turns")
        assert (turn["state"], turn["operation"]) == ("completed", "threads.create")
        assert turn["usage"]["output_tokens"] > 0
        assert {row["turn_id"] for row in rows} == {turn["turn_id"]}


async def test_a_replay_asks_for_its_turn_and_seldom_whether_that_is_dead(store: DatabaseStore) -> None:
    seen = Statements(store.database)
    chat = Chat(store, Scripted(asyncio.Event()))
    request, draft = create("Hello"), Draft()
    context = RequestContext("alice", session=WriteSession(request.type, idempotency_key="key", request_hash="h"))
    running = await chat.runner.start(chat.server.stream(request, context, draft), context, draft)
    entry = await store.turns.find("key", RequestContext("alice"))
    assert entry is not None
    replay = Replay(
        entry,
        "key",
        RequestContext("alice"),
        store=store,
        encode=chat.server.encode,
        stale_seconds=30,
        is_draining=lambda: False,
    )
    seen.names.clear()
    assert await replay.read(1.8) is None
    assert Counter(seen.names)["find_turn_by_key"] == 4
    assert Counter(seen.names)["close_stale_turns"] == 1
    running.stop(no_readers())
    await asyncio.wait([running.task])
