"""Checkpoints of many answers at once: what they cost, and that none of them waits for another."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from chatkit.types import AssistantMessageContentPartTextDelta

from chatkit_postgres.chat.turns.checkpoints import Checkpoints
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import BACKGROUND, OVERDUE, wait_policy
from chatkit_postgres.db.slots import WaitPolicy
from chatkit_postgres.errors import ChatError, NotFound, Superseded
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.partials import Appended, Checkpoint, PartialItem
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import stored
from tests.support.items import assistant_message, thread, user_message
from tests.support.sql import Statements

ANSWERS = 1000
SECONDS = 4


class Answer:
    """An open turn whose text is put into its draft."""

    def __init__(self, number: int) -> None:
        self.context = RequestContext(f"user-{number}", session=WriteSession("threads.create"))
        self.draft = Draft()
        self.is_open = True
        self.ended_for: list[ChatError | None] = []
        self.words = 0

    async def open(self, store: DatabaseStore) -> "Answer":
        await store.save_thread(thread("t"), self.context)
        await store.add_thread_item("t", user_message("t", "m"), self.context)
        self.draft.begin(assistant_message("t", "a", ""))
        return self

    def say(self) -> None:
        delta = AssistantMessageContentPartTextDelta(content_index=0, delta=f"w{self.words} ")
        assert self.draft.update("a", delta)
        self.words += 1

    def end_by_checkpoint(self, reason: ChatError | None) -> None:
        self.is_open = False
        self.ended_for.append(reason)


@pytest.fixture
async def checkpoints(store: DatabaseStore) -> AsyncIterator[Checkpoints]:
    made = Checkpoints(store.partials, heartbeat_seconds=1, observe_lag=lambda _: None)
    yield made
    for turn in list(made._turns):
        await made.leave(turn)


async def opened(store: DatabaseStore, count: int) -> list[Answer]:
    return [await Answer(number).open(store) for number in range(count)]


async def text_of(store: DatabaseStore, user: str) -> str:
    item = await store.load_item("t", "a", RequestContext(user))
    return "".join(part.text for part in getattr(item, "content", []))


@pytest.mark.slow
async def test_a_thousand_answers_cost_four_statements_a_second_and_lose_a_second_of_text(
    store: DatabaseStore, checkpoints: Checkpoints
) -> None:
    answers = await opened(store, ANSWERS)
    # Which is asked once.
    await store.database.is_cluster()
    seen = Statements(store.database)
    for answer in answers:
        checkpoints.add(answer)
    started = time.monotonic()
    said: list[tuple[float, int]] = []
    while time.monotonic() - started < SECONDS:
        for answer in answers:
            answer.say()
        said.append((time.monotonic(), answers[0].words))
        await asyncio.sleep(0.1)
    now = time.monotonic()
    names = Counter(seen.names)
    print(f"{names} in {now - started:.1f} s")  # noqa: T201 - for people who look
    assert set(names) == {"checkpoint_turns", "save_partial_items"}
    assert names.total() <= 4 * (now - started) + 1
    assert names["checkpoint_turns"] >= SECONDS
    # What was said more than a second ago is stored, for every one of them.
    safe = max(words for at, words in said if at < now - 1)
    (row,) = await stored(
        store,
        "SELECT count(*) AS answers, min(length) AS shortest FROM ("
        " SELECT m.user_id, length(m.content) + COALESCE(sum(length(l.text)), 0) AS length FROM chat_messages m"
        " LEFT JOIN chat_partial_log l USING (user_id, session_id, turn_id, message_id)"
        " WHERE m.is_partial GROUP BY m.user_id, m.content) x",
    )
    assert row["answers"] == ANSWERS
    assert row["shortest"] >= len("".join(f"w{number} " for number in range(safe)))


async def test_bytes_grow_with_the_text(store: DatabaseStore, checkpoints: Checkpoints) -> None:
    (answer,) = await opened(store, 1)
    checkpoints.add(answer)
    while answer.words < 30:
        answer.say()
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.1)
    written = await stored(store, "SELECT text FROM chat_partial_log ORDER BY sequence")
    (row,) = await stored(store, "SELECT content FROM chat_messages WHERE is_partial")
    assert len(written) > 1
    # Each word was written once: in the row, or in one entry.
    assert row["content"] + "".join(entry["text"] for entry in written) == "".join(f"w{n} " for n in range(30))


async def test_the_first_words_are_saved_soon(store: DatabaseStore, checkpoints: Checkpoints) -> None:
    (answer,) = await opened(store, 1)
    checkpoints.add(answer)
    await asyncio.sleep(0.6)
    answer.say()
    await asyncio.sleep(0.4)
    assert await text_of(store, "user-0") == "w0 "


async def test_checkpoints_that_come_late_go_before_other_statements(
    store: DatabaseStore, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or other replicas would take the turns of a process that is only busy for dead.
    (answer,) = await opened(store, 1)
    asked: list[WaitPolicy] = []
    checkpoint = store.partials.checkpoint

    async def slow_at_first(turns: Sequence[Checkpoint], *, with_heartbeat: bool) -> Appended:
        asked.append(wait_policy.get())
        await asyncio.sleep(1.1 if len(asked) == 1 else 0)
        return await checkpoint(turns, with_heartbeat=with_heartbeat)

    monkeypatch.setattr(store.partials, "checkpoint", slow_at_first)
    checkpoints.add(answer)
    await asyncio.sleep(2.5)
    assert asked[:2] == [BACKGROUND, OVERDUE]


async def test_an_answer_that_cannot_be_saved_keeps_no_other_from_it(
    store: DatabaseStore, checkpoints: Checkpoints
) -> None:
    bad, good = await opened(store, 2)
    bad.say()
    good.say()
    bad.draft.begin(assistant_message("t", "b", "x").model_copy(update={"created_at": "\ud800"}))
    for answer in (bad, good):
        checkpoints.add(answer)
    await asyncio.sleep(0.8)
    good.say()
    await asyncio.sleep(1)
    assert await text_of(store, "user-1") == "w0 w1 "
    with pytest.raises(NotFound):
        await store.load_item("t", "b", bad.context)


async def test_a_turn_that_lost_its_thread_is_told_once(store: DatabaseStore, checkpoints: Checkpoints) -> None:
    (answer,) = await opened(store, 1)
    checkpoints.add(answer)
    newer = RequestContext("user-0", session=WriteSession("threads.add_user_message"))
    await store.add_thread_item("t", user_message("t", "m2"), newer)
    await asyncio.sleep(1.3)
    assert [type(reason) for reason in answer.ended_for] == [Superseded]


async def test_nothing_is_under_way_once_a_turn_has_left(store: DatabaseStore, checkpoints: Checkpoints) -> None:
    """Its end deletes the log, which must not grow afterwards."""
    answers = await opened(store, 20)
    for answer in answers:
        checkpoints.add(answer)
    for moment in range(15):
        for answer in answers:
            answer.say()
        await asyncio.sleep(0.1)
        if moment >= 5:
            await checkpoints.leave(answers[moment])
            before = await text_of(store, answers[moment].context.user_id)
            answers[moment].say()
            answers[moment].is_open = False
            await asyncio.sleep(0.05)
            assert await text_of(store, answers[moment].context.user_id) == before


async def test_a_turn_that_begins_while_the_last_one_leaves_is_saved(
    store: DatabaseStore, checkpoints: Checkpoints
) -> None:
    leaving, beginning = await opened(store, 2)
    checkpoints.add(leaving)
    await asyncio.sleep(0)
    await checkpoints.leave(leaving)
    checkpoints.add(beginning)
    beginning.say()
    await asyncio.sleep(1)
    assert await text_of(store, "user-1") == "w0 "


async def test_nothing_is_remembered_of_a_turn_that_has_left(store: DatabaseStore, checkpoints: Checkpoints) -> None:
    (bad,) = await opened(store, 1)
    bad.say()
    bad.draft.begin(assistant_message("t", "b", "x").model_copy(update={"created_at": "\ud800"}))
    checkpoints.add(bad)
    async with asyncio.timeout(5):
        while not checkpoints._failed_at:  # noqa: ASYNC110 - the event is in another task
            await asyncio.sleep(0.02)
    await checkpoints.leave(bad)
    assert (checkpoints._failed_at, checkpoints._turns) == ({}, set())


async def test_what_is_removed_between_two_attempts_is_not_saved_by_the_second(
    store: DatabaseStore, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = await opened(store, 4)
    for answer in answers:
        answer.say()
    save, removals = store.partials.save_items, list[asyncio.Task[None]]()

    async def remove(answer: Answer) -> None:
        async with answer.draft.lock:
            answer.draft.discard("a")
            await store.delete_thread_item("t", "a", answer.context)

    async def refused_once(items: Sequence[PartialItem]) -> list[bool]:
        if removals:
            return await save(items)
        removals.extend(asyncio.create_task(remove(answer)) for answer in answers)
        # Each of them waits for the lock that this checkpoint holds.
        await asyncio.sleep(0)
        raise RuntimeError("one of them cannot be saved")

    monkeypatch.setattr(store.partials, "save_items", refused_once)
    for answer in answers:
        checkpoints.add(answer)
    await asyncio.sleep(1.2)
    assert len(removals) == len(answers)
    await asyncio.gather(*removals)
    assert await stored(store, "SELECT item_id FROM chat_messages WHERE sender_type = 'assistant'") == []
