"""Every statement of the store is first run by a stranger, with the ids of its owner.

What the stranger gets must be what they would get for ids that do not exist, and the owner's rows must stay as they
are. This reaches the statements that no request of a stranger reaches: those of a turn that is under way.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import pytest
from chatkit.agents import AgentContext
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientToolCallItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.assistant import Assistant, action
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db.database import Transaction
from chatkit_postgres.store.sql import (
    approvals,
    attachments,
    feedback,
    items,
    limits,
    live,
    search,
    threads,
    tool_calls,
    turns,
)
from chatkit_postgres.store.sql import history as history_sql
from chatkit_postgres.store.sql import user_data as user_data_sql
from tests.isolation.matrix import Matrix, Params
from tests.support.assistants import press

NOT_OF_ONE_OWNER = {
    "poll_turns",
    "list_abandoned_runs",
    "list_all_unindexed",
    "list_dead_holds",
    "index_rows",
    # Of clusters.
    "poll_turns_of_owner",
    "index_rows_of_owner",
    "without_compiling",
}
"""These are tested where their repositories are."""

_USER_DATA = {
    statement.name: statement for made in (user_data_sql.LISTS, user_data_sql.INSERTS) for statement in made.values()
}
STATEMENTS: dict[str, Statement] = _USER_DATA | {
    statement.name: statement
    for room in (
        approvals,
        attachments,
        feedback,
        items,
        history_sql,
        limits,
        live,
        search,
        threads,
        tool_calls,
        turns,
        user_data_sql,
    )
    for statement in vars(room).values()
    if isinstance(statement, Statement) and statement.name not in NOT_OF_ONE_OWNER
}


class Talkative(Assistant):
    """Says something slowly, takes something back, asks the client. Long enough for checkpoints and heartbeats."""

    calls = 0

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        Talkative.calls += 1
        common: dict[str, Any] = {"thread_id": context.thread.id, "created_at": datetime.now()}  # noqa: DTZ005 - as the SDK does
        last = history[-1]
        words = last.content[0].text if isinstance(last, UserMessageItem) else ""
        if "ask" in words:
            call = ClientToolCallItem(id="call", call_id="call", name="look", arguments={}, **common)
            yield ThreadItemDoneEvent(item=call)
            return
        answer = AssistantMessageItem(id="answer", content=[AssistantMessageContent(text="")], **common)
        yield ThreadItemAddedEvent(item=answer)
        for _ in range(7 if "slowly" in words else 1):
            update = AssistantMessageContentPartTextDelta(content_index=0, delta="word ")
            yield ThreadItemUpdatedEvent(item_id="answer", update=update)
            await asyncio.sleep(0.12 if "slowly" in words else 0)
        yield ThreadItemDoneEvent(item=answer.model_copy(update={"content": [AssistantMessageContent(text="word")]}))
        wrong = AssistantMessageItem(id="wrong", content=[AssistantMessageContent(text="wrong")], **common)
        yield ThreadItemDoneEvent(item=wrong)
        yield ThreadItemRemovedEvent(item_id="wrong")

    @action("press")
    async def press(self, *called: Any) -> Any:
        return await press(*called)


def build() -> Talkative:
    return Talkative()


class Strangers:
    """Stands before ``Database.run`` for the statements of one owner."""

    def __init__(self, matrix: Matrix, connection: asyncpg.Connection) -> None:
        self._matrix = matrix
        self._owner = matrix.victim.user
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()
        self.tried: set[str] = set()
        self.findings: list[str] = []

    def stand_before(self, patch: pytest.MonkeyPatch) -> None:
        own_run, own_transaction_run = Database.run, Transaction.run
        strangers = self

        async def run(database: Database, owner: str, statement: Statement, **parameters: Any) -> Any:
            if owner == strangers._owner:
                await strangers.try_it(statement, parameters)
            return await own_run(database, owner, statement, **parameters)

        async def run_inside(transaction: Transaction, owner: str, statement: Statement, **parameters: Any) -> Any:
            if owner == strangers._owner:
                await strangers.try_it(statement, parameters)
            return await own_transaction_run(transaction, owner, statement, **parameters)

        patch.setattr(Database, "run", run)
        patch.setattr(Transaction, "run", run_inside)

    async def try_it(self, statement: Statement, parameters: Params) -> None:
        async with self._one_at_a_time:
            self.tried.add(statement.name)
            try:
                await self._compare(statement, parameters)
            except AssertionError as finding:
                # The application would make an answer of it.
                self.findings.append(str(finding))

    async def _compare(self, statement: Statement, parameters: Params) -> None:
        seen = await self._seen(statement, parameters)
        others = {name: _absent(name, value) for name, value in parameters.items()}
        absent = await self._seen(statement, others)
        for name, value in others.items():
            if value != parameters[name]:
                absent = absent.replace(str(value), str(parameters[name]))
        assert seen == absent, f"{statement.name}: a stranger sees {seen} where nothing would be {absent}"
        # What a stranger sends may come back.
        if self._matrix.victim.mark not in str(parameters):
            assert self._matrix.victim.mark not in seen, f"{statement.name}: a stranger sees {seen}"

    async def _seen(self, statement: Statement, parameters: Params) -> str:
        """What a stranger gets. Nothing of it is committed, and nothing of the owner's may have changed."""
        values = statement.values({"owner": self._matrix.own.user} | parameters)
        # Its own snapshot: the owner goes on meanwhile.
        transaction = self._connection.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            # A stranger who has to wait has met the owner's rows.
            await self._connection.execute("SET LOCAL lock_timeout = '300ms'")
            before = await self._digest()
            try:
                async with self._connection.transaction():
                    rows = await self._connection.fetch(statement.driver_sql, *values)
                    assert await self._digest() == before, f"{statement.name}: a stranger changed the owner's rows"
            except asyncpg.LockNotAvailableError:
                raise AssertionError(f"{statement.name}: a stranger waits for the owner's rows") from None
            except asyncpg.PostgresError as error:
                return type(error).__name__
            # Times of their own rows differ.
            return str([{k: v for k, v in row.items() if not isinstance(v, datetime | float)} for row in rows])
        finally:
            await transaction.rollback()

    async def _digest(self) -> str:
        found = await self._connection.fetchval(self._matrix.everything, self._owner)
        return str(found)


def _absent(name: str, value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return uuid.uuid4()
    if name == "attachments":
        return [uuid.uuid4().hex for _ in value]
    is_id = name in {"idempotency_key", "attachment_id", "hold"} and value is not None
    return uuid.uuid4().hex if is_id else value
