"""What the model sees of a thread: the newest turns that fit, at a cost that does not grow with the thread."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from chatkit.types import ClientToolCallItem, GeneratedImage, GeneratedImageItem, WidgetItem
from chatkit.widgets import DynamicWidgetRoot

from chatkit_postgres.chat.history import limits_of, recent_items
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Statement
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.session import WriteSession
from tests.support.chat import Chat, add_message, demo_assistant
from tests.support.items import NAIVE, assistant_message, thread, user_message
from tests.support.sql import OF_CHECKPOINTS, Statements, sql_connection


def alice() -> RequestContext:
    return RequestContext(user_id="alice")


async def talked(store: DatabaseStore, *messages: tuple[str, str]) -> None:
    """A thread of ("u", text) and ("a", text)."""
    await store.save_thread(thread("t"), alice())
    for number, (who, text) in enumerate(messages):
        make = user_message if who == "u" else assistant_message
        await store.add_thread_item("t", make("t", f"m{number}", text), alice())


async def ids(store: DatabaseStore, limits: HistoryLimits) -> list[str]:
    return [item.id for item in await recent_items(store, "t", alice(), limits)]


async def test_a_short_thread_is_seen_whole(store: DatabaseStore) -> None:
    await talked(store, ("a", "Welcome"), ("u", "one"), ("a", "two"))
    assert await ids(store, HistoryLimits()) == ["m0", "m1", "m2"]


async def test_a_long_thread_is_cut_at_a_turn(store: DatabaseStore) -> None:
    await talked(store, *[("u", "q"), ("a", "first"), ("a", "second")] * 4)
    # Five items would begin in the middle of a turn.
    assert await ids(store, HistoryLimits(items=5)) == ["m9", "m10", "m11"]
    assert await ids(store, HistoryLimits(items=6)) == ["m6", "m7", "m8", "m9", "m10", "m11"]
    assert len(await ids(store, HistoryLimits(items=12))) == 12


async def test_long_messages_use_the_budget_up(store: DatabaseStore) -> None:
    await talked(store, ("u", "x" * 40_000), ("a", "x"), ("u", "y"), ("a", "y" * 4000), ("u", "now"))
    assert await ids(store, limits_of(32_000)) == ["m0", "m1", "m2", "m3", "m4"]
    assert await ids(store, limits_of(2_000)) == ["m2", "m3", "m4"]
    assert await ids(store, limits_of(1_000)) == ["m4"]


async def test_the_newest_is_seen_whatever_its_size(store: DatabaseStore) -> None:
    await talked(store, ("u", "before"), ("u", "x" * 40_000))
    assert await ids(store, limits_of(1_000)) == ["m1"]


async def test_a_question_stays_with_its_answers_whatever_they_weigh(store: DatabaseStore) -> None:
    await talked(store, ("u", "before"), ("u", "q" * 5000), ("a", "one"), ("a", "two" * 5000))
    assert await ids(store, limits_of(1_000)) == ["m1", "m2", "m3"]


def tool_call(number: int, output: Any) -> ClientToolCallItem:
    return ClientToolCallItem(
        id=f"c{number}",
        thread_id="t",
        created_at=NAIVE,
        status="completed",
        call_id="call_0",
        name="look",
        arguments={"at": number},
        output=output,
    )


@pytest.mark.parametrize(
    "output", ["x" * 150_000, {"rows": ["ü" * 75_000]}, [["y" * 149_990]]], ids=["text", "object", "list"]
)
async def test_a_large_output_is_cut_in_the_middle_and_the_question_stays(store: DatabaseStore, output: Any) -> None:
    await talked(store, ("u", "before"), ("a", "long ago"), ("u", "the question"))
    await store.add_thread_item("t", tool_call(1, output), alice())
    seen = await recent_items(store, "t", alice(), limits_of(32_000))
    assert [item.id for item in seen] == ["m0", "m1", "m2", "c1"]
    shown: Any = seen[-1].output  # type: ignore[union-attr] # a tool call's
    whole = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    head, mark, tail = re.split(r"(\n\[\.\.\. \d+ characters are left out here \.\.\.\]\n)", shown)
    assert len(head) == len(tail) == 16_000
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert int(re.findall(r"\d+", mark)[0]) == len(whole) - 32_000


@pytest.mark.parametrize(("rounds", "size"), [(1, 250_000), (100, 150_000), (300, 10)])
async def test_the_question_stays_however_many_tools_were_asked(store: DatabaseStore, rounds: int, size: int) -> None:
    limits = limits_of(32_000)
    await talked(store, ("u", "before"), ("u", "the question"))
    for number in range(rounds):
        await store.add_thread_item("t", tool_call(number, "x" * size), alice())
    seen = await recent_items(store, "t", alice(), limits)
    question = next(number for number, item in enumerate(seen) if item.id == "m1")
    assert [item.id for item in seen[question:]] == ["m1", *(f"c{number}" for number in range(rounds))]
    weight = sum(len(item.model_dump_json()) for item in seen)
    assert weight <= limits.bytes + rounds * 100


async def test_what_was_answered_now_is_cut_as_well(store: DatabaseStore) -> None:
    await talked(store, ("u", "the question"))
    context = RequestContext(user_id="alice", session=WriteSession("threads.add_client_tool_output"))
    context.history_notes.answered = tool_call(1, "x" * 150_000)
    seen: Any = await recent_items(store, "t", context, limits_of(32_000))
    assert [item.id for item in seen] == ["m0", "c1"]
    assert len(seen[1].output) < 33_000


async def test_a_picture_and_a_widget_with_words_weigh_a_line(store: DatabaseStore) -> None:
    await talked(store, ("u", "my name is Bob"), ("a", "Hello Bob"))
    image = GeneratedImage(id="i", url="data:image/png;base64," + "A" * 1_500_000)
    heavy = DynamicWidgetRoot.model_validate({"type": "Card", "children": [{"type": "Text", "value": "x" * 200_000}]})
    common: dict[str, Any] = {"thread_id": "t", "created_at": NAIVE}
    await store.add_thread_item("t", GeneratedImageItem(id="i", image=image, **common), alice())
    await store.add_thread_item("t", WidgetItem(id="w", widget=heavy, copy_text="A card", **common), alice())
    assert await ids(store, limits_of(1_000)) == ["m0", "m1", "i", "w"]


class Traffic:
    """Rows and bytes that come from PostgreSQL. An integer has eight bytes, whatever its digits."""

    def __init__(self, store: DatabaseStore, patch: pytest.MonkeyPatch) -> None:
        self.rows = self.bytes = 0
        original = type(store.database).run

        async def run(database: Any, owner: str, statement: Statement, **more: Any) -> Sequence[Any]:
            found = await original(database, owner, statement, **more)
            if statement.name in OF_CHECKPOINTS:
                return found
            self.rows += len(found)
            for row in found:
                self.bytes += sum(len(v) if isinstance(v, str) else 8 for v in row.values())
            return found

        patch.setattr(type(store.database), "run", run)


async def test_a_thread_of_ten_thousand_items_costs_what_one_of_a_hundred_does(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(store, demo_assistant())
    costs = []
    for thread_id, count in (("short", 100), ("long0", 10_000)):
        await store.save_thread(thread(thread_id, title="Titled"), alice())
        await _filled(store, thread_id, count)
        statements = Statements(store.database)
        with monkeypatch.context() as patch:
            traffic = Traffic(store, patch)
            assert (await chat.events(add_message(thread_id, "And now?")))[-1]["type"] == "thread.item.done"
        names = [name for name in statements.names if name not in OF_CHECKPOINTS]
        costs.append((names, traffic.rows, traffic.bytes))
    assert costs[0] == costs[1]
    names, rows, _ = costs[0]
    assert len(names) == 6
    assert rows < 110


async def _filled(store: DatabaseStore, thread_id: str, count: int) -> None:
    """Items as the store writes them, made by one statement of the test."""
    await store.add_thread_item(thread_id, user_message(thread_id, f"{thread_id}-000001", "question"), alice())
    async with sql_connection(store.database) as connection:
        await connection.exec_driver_sql(
            f"""
            INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type,
                                       content, item)
            SELECT user_id, session_id, gen_random_uuid(), '{thread_id}-' || lpad(n::text, 6, '0'), n, sender_type,
                   item_type, content, jsonb_set(item, '{{id}}', to_jsonb('{thread_id}-' || lpad(n::text, 6, '0')))
              FROM chat_messages, generate_series(2, {count}) n
             WHERE user_id = 'alice' AND item_id = '{thread_id}-000001'
            """
        )
        await connection.exec_driver_sql(
            f"UPDATE chat_sessions SET next_position = {count + 1} WHERE thread_id = '{thread_id}'"
        )


async def test_a_heavy_widget_leaves_what_tools_say(store: DatabaseStore) -> None:
    await talked(store, ("u", "the question"))
    heavy = DynamicWidgetRoot.model_validate({"type": "Card", "children": [{"type": "Text", "value": "x" * 200_000}]})
    widget = WidgetItem(id="w", widget=heavy, copy_text="A card", thread_id="t", created_at=NAIVE)
    await store.add_thread_item("t", widget, alice())
    await store.add_thread_item("t", tool_call(1, "o" * 5000), alice())
    seen: Any = await recent_items(store, "t", alice(), limits_of(32_000))
    assert seen[-1].output == "o" * 5000


REFUSALS = ["input_guardrail_tripped", "content_refused", "context_too_long"]


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("retried", [False, True])
async def test_no_answer_stands_without_its_question(store: DatabaseStore, code: str, retried: bool) -> None:
    """Whether it was refused in the middle of its answer, or when it was retried."""
    await talked(store, ("u", "first"), ("a", "answer"))
    await asked(store, "q", error_code=None if retried else code)
    if retried:
        context = RequestContext(user_id="alice", session=WriteSession("threads.retry_after_item"))
        await store.turns.open_retry("t", "q", context)
        await store.turns.finish(context, Outcome("failed", code))
    await store.add_thread_item("t", user_message("t", "last"), alice())
    assert await ids(store, limits_of(32_000)) == ["m0", "m1", "last"]
    assert [item.id for item in (await store.load_thread_items("t", None, 9, "asc", alice())).data] == [
        *("m0", "m1", "q", "answer to q", "last")
    ]


async def asked(store: DatabaseStore, item_id: str, error_code: str | None) -> None:
    """A question with an answer: a whole one, or half of one that was refused."""
    context = RequestContext(user_id="alice", session=WriteSession("threads.add_user_message"))
    await store.add_thread_item("t", user_message("t", item_id), context)
    answer = assistant_message("t", f"answer to {item_id}", "half" if error_code else "whole")
    if error_code is None:
        await store.add_thread_item("t", answer, context)
    outcome = Outcome("failed" if error_code else "completed", error_code)
    await store.turns.finish(context, outcome, unfinished=[answer] if error_code else [])


@pytest.mark.parametrize("code", ["picture_refused", "answer_filtered", "model_unavailable"])
async def test_a_message_that_was_not_refused_stays_with_what_came_of_its_answer(
    store: DatabaseStore, code: str
) -> None:
    await talked(store, ("u", "first"), ("a", "answer"))
    await asked(store, "q", error_code=code)
    found = await store.history.load_newest("t", HistoryLimits(), alice())
    assert [item.id for item in found.items] == ["m0", "m1", "q", "answer to q"]
    assert found.cut_short == {"answer to q": "failed"}
    assert found.without_images == ({"q"} if code == "picture_refused" else set())
