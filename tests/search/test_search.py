"""Search on a real PostgreSQL: what is found, in which order, and what never is."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from chatkit.types import (
    FileAttachment,
    HiddenContextItem,
    StructuredInputAnswer,
    StructuredInputFreeform,
    StructuredInputItem,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot
from sqlalchemy import text as sql

from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import PartialItem
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql import search as search_sql
from tests.search.languages import SCRIPTS, Sentence
from tests.store.test_partials import append, entry, in_turn, partial
from tests.support.chat import stored
from tests.support.items import NAIVE, assistant_message, thread, user_message
from tests.support.sql import sql_connection


def alice() -> RequestContext:
    return RequestContext("alice")


def bob() -> RequestContext:
    return RequestContext("bob")


@pytest.fixture
async def talk(store: DatabaseStore) -> DatabaseStore:
    await store.save_thread(thread("t", title="A trip to Kyōto"), alice())
    return store


async def found(store: DatabaseStore, query: str, user: str = "alice") -> list[str | None]:
    return [hit.item_id for hit in (await store.search.search(query, RequestContext(user), limit=100)).data]


async def execute(store: DatabaseStore, command: str, **values: object) -> None:
    async with sql_connection(store.database) as connection:
        await connection.execute(sql(command), values)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_generated_messages_and_queries(store: DatabaseStore, name: str) -> None:
    """125 queries in each of eight scripts, against a list of words that knows nothing of ours."""
    dice = random.Random(name)
    script = SCRIPTS[name]
    sentences: dict[str, Sentence] = {}
    await store.save_thread(thread("t"), alice())
    for number in range(40):
        sentence = sentences[f"m{number}"] = script.sentence(dice)
        await store.add_thread_item("t", user_message("t", f"m{number}", sentence.text), alice())
    hits = 0
    for _ in range(125):
        query, is_found = script.query(dice, list(sentences.values()))
        expected = {item_id for item_id, sentence in sentences.items() if is_found(sentence)}
        assert set(await found(store, query)) == expected, query
        hits += len(expected)
    assert hits > 125


async def test_titles_and_later_titles_are_found(talk: DatabaseStore) -> None:
    (hit,) = (await talk.search.search("kyoto", alice())).data
    assert (hit.thread_id, hit.item_id, hit.title) == ("t", None, "A trip to Kyōto")
    assert hit.snippet == "A trip to <mark>Kyōto</mark>"
    renamed = await talk.load_thread("t", alice())
    renamed.title = "Osaka"
    await talk.save_thread(renamed, alice())
    assert (await found(talk, "kyoto"), await found(talk, "osaka")) == ([], [None])


async def test_an_old_thread_that_is_saved_anew_is_found(talk: DatabaseStore) -> None:
    """By a caller who has not loaded it."""
    await execute(talk, "UPDATE chat_sessions SET created_at = now() - interval '70 days'")
    await talk.save_thread(thread("t", title="Osaka"), alice())
    assert await found(talk, "osaka") == [None]


@pytest.mark.one_postgres
async def test_the_newest_rows_are_indexed_first(talk: DatabaseStore) -> None:
    for number in range(4):
        await talk.add_thread_item("t", user_message("t", f"m{number}", f"PEARL {number}"), alice())
    await execute(
        talk,
        "UPDATE chat_messages SET search_words = NULL, created_at = now() - position * interval '1 day'",
    )
    rows = await talk.database.run("alice", search_sql.LIST_UNINDEXED)
    assert [row["item_id"] for row in rows] == ["m0", "m1", "m2", "m3"]


async def test_an_answer_that_older_code_is_writing_is_indexed_when_it_is_whole(store: DatabaseStore) -> None:
    context = await in_turn(store)
    await partial(store, context, "Once")
    # As older code leaves it.
    await execute(store, "UPDATE chat_messages SET search_words = NULL WHERE item_id = 'a'")
    assert await store.search_index.fill() == 0
    await execute(
        store,
        """UPDATE chat_messages SET is_partial = false, content = 'Once upon',
                  item = jsonb_set(item, '{content,0,text}', '"Once upon"') WHERE item_id = 'a'""",
    )
    assert await found(store, "upon") == ["a"]


async def test_a_long_thread_of_refused_messages_is_judged_once(talk: DatabaseStore) -> None:
    """Not once for each of its messages that has the word."""
    for number in range(300):
        turn = RequestContext("alice", session=WriteSession("threads.add_user_message"))
        await talk.add_thread_item("t", user_message("t", f"m{number}", "a PEARL"), turn)
        error_code = "content_refused" if number % 2 else None
        await talk.turns.finish(turn, Outcome("failed" if error_code else "completed", error_code=error_code))
    assert len(await found(talk, "pearl")) == 100
    last = (await talk.search.search("pearl", alice(), limit=100)).after
    rest = await talk.search.search("pearl", alice(), limit=100, after=last)
    assert (len(rest.data), rest.has_more) == (50, False)


async def test_what_the_user_reads_is_found(talk: DatabaseStore) -> None:
    with_file = user_message("t", "m", "Look").model_copy(
        update={"attachments": [FileAttachment(id="f", name="Invoice-2026.pdf", mime_type="application/pdf")]}
    )
    await talk.add_thread_item("t", with_file, alice())
    card = {"type": "Card", "children": [{"type": "Row", "children": [{"type": "Text", "value": "Order shipped"}]}]}
    widget = WidgetItem(
        id="w", thread_id="t", created_at=NAIVE, widget=DynamicWidgetRoot.model_validate(card | {"key": "secretkey"})
    )
    await talk.add_thread_item("t", widget, alice())
    assert [await found(talk, query) for query in ("invoice", "2026", "shipped", "secretkey")] == [
        ["m"],
        ["m"],
        ["w"],
        [],
    ]
    changed = widget.model_copy(update={"widget": DynamicWidgetRoot.model_validate(card | {"title": "Delivered"})})
    await talk.save_item("t", changed, alice())
    assert await found(talk, "delivered shipped") == ["w"]


async def test_hidden_and_deleted_items_are_not_found(talk: DatabaseStore) -> None:
    await talk.add_thread_item(
        "t", HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="PEARL"), alice()
    )
    await talk.add_thread_item("t", user_message("t", "m", "a PEARL"), alice())
    assert await found(talk, "pearl") == ["m"]
    await talk.delete_thread_item("t", "m", alice())
    assert await found(talk, "pearl") == []
    await talk.add_thread_item("t", user_message("t", "n", "a PEARL"), alice())
    await talk.delete_thread("t", alice())
    assert await found(talk, "pearl kyoto") == []


async def test_the_owner_alone_finds(talk: DatabaseStore) -> None:
    await talk.add_thread_item("t", user_message("t", "m", "a PEARL"), alice())
    await talk.save_thread(thread("t"), bob())
    assert await talk.search.search("pearl", bob()) == await talk.search.search("nothing", bob())
    # Not by a lexeme of the owner either.
    for query in ("@" + "0" * 16, "pearl @alice", "pearl#2900"):
        assert await found(talk, query, "bob") == []


async def test_an_unfinished_answer_is_found_when_its_turn_has_ended(store: DatabaseStore) -> None:
    context = await in_turn(store)
    await partial(store, context, "Once upon")
    assert await found(store, "upon") == []
    await append(store, context, entry(1, 9, " a PEARL"))
    await execute(store, "UPDATE chat_turns SET heartbeat_at = now() - interval '1 hour'")
    await store.turns.close_stale("t", context, stale_seconds=30)
    assert await found(store, "upon pearl") == ["a"]
    (row,) = await stored(store, "SELECT search_words IS NULL AS is_missing FROM chat_messages WHERE item_id = 'a'")
    assert row["is_missing"] is False


async def test_what_a_stopped_turn_leaves_is_found(store: DatabaseStore) -> None:
    context = await in_turn(store)
    await partial(store, context, "Once")
    await store.turns.finish(context, Outcome("stopped"), unfinished=[assistant_message("t", "a", "Once upon a PEARL")])
    assert await found(store, "pearl") == ["a"]


async def test_an_answer_that_nobody_has_judged_is_not_found(store: DatabaseStore) -> None:
    await in_turn(store)
    session = WriteSession("threads.retry_after_item", awaits_verdict=True)
    context = RequestContext("alice", session=session)
    await store.turns.open_retry("t", "m", context)
    await store.partials.save_items([PartialItem(context, assistant_message("t", "a", "a PEARL"))])
    await store.add_thread_item("t", assistant_message("t", "b", "a PEARL"), context)
    assert await found(store, "pearl") == []
    await store.writer.publish_answer("t", context)
    await store.turns.finish(context, Outcome("completed"))
    assert set(await found(store, "pearl")) == {"a", "b"}


async def test_a_refused_message_is_not_found_until_it_has_passed(store: DatabaseStore) -> None:
    await in_turn(store)
    refused = RequestContext("alice", session=WriteSession("threads.add_user_message"))
    await store.add_thread_item("t", user_message("t", "m2", "a PEARL"), refused)
    await store.turns.finish(refused, Outcome("failed", error_code="input_guardrail_tripped"))
    assert await found(store, "pearl") == []
    assert await found(store, "hello") == ["m"]
    again = RequestContext("alice", session=WriteSession("threads.retry_after_item"))
    await store.turns.open_retry("t", "m2", again)
    await store.add_thread_item("t", assistant_message("t", "a", "fine"), again)
    await store.turns.finish(again, Outcome("completed"))
    assert await found(store, "pearl") == ["m2"]


async def test_pages_are_the_newest_first_over_many_years(talk: DatabaseStore) -> None:
    dice = random.Random(7)
    times = {}
    for number in range(150):
        item_id = f"m{number}"
        await talk.add_thread_item("t", user_message("t", item_id, "a common word"), alice())
        age = timedelta(days=dice.expovariate(1 / 300))
        # Several at one moment.
        times[item_id] = (datetime.now(UTC) - age).replace(minute=0, second=0, microsecond=0)
        await execute(
            talk,
            "UPDATE chat_messages SET created_at = :time, search_words = NULL WHERE item_id = :id",
            time=times[item_id],
            id=item_id,
        )
    pages, after = [], None
    while True:
        page = await talk.search.search("word", alice(), limit=dice.randint(1, 30), after=after)
        pages += page.data
        if not page.has_more:
            break
        after = page.after
    assert page.after is None
    assert sorted(hit.item_id or "" for hit in pages) == sorted(times)
    assert [hit.created_at for hit in pages] == sorted(times.values(), reverse=True)


async def test_a_row_that_was_indexed_in_the_week_after_it_was_made_is_in_its_place(talk: DatabaseStore) -> None:
    """As a turn does that ends on another day than it began."""
    for days, item_id in ((1, "new"), (8, "late"), (15, "older"), (22, "oldest")):
        await talk.add_thread_item("t", user_message("t", item_id, "a PEARL"), alice())
        before = "" if item_id == "late" else ", search_words = NULL"
        await execute(
            talk,
            f"UPDATE chat_messages SET created_at = now() - make_interval(days => :days){before} WHERE item_id = :id",
            days=days,
            id=item_id,
        )
    first = await talk.search.search("pearl", alice(), limit=2)
    rest = await talk.search.search("pearl", alice(), after=first.after)
    assert [hit.item_id for hit in first.data + rest.data] == ["new", "late", "older", "oldest"]


async def test_a_cursor_of_another_list_is_refused(talk: DatabaseStore) -> None:
    for number in range(3):
        await talk.save_thread(thread(f"t{number}"), alice())
    after = (await talk.load_threads(1, None, "desc", alice())).after
    with pytest.raises(Unprocessable, match="after: "):
        await talk.search.search("word", alice(), after=after)


@pytest.mark.parametrize("after", ["m", "~", "0~1~abc", "9" * 400])
async def test_a_page_of_nothing_is_refused(talk: DatabaseStore, after: str) -> None:
    with pytest.raises(Unprocessable, match="after: "):
        await talk.search.search("word", alice(), after=after)


async def test_rows_without_an_entry_are_indexed_by_who_searches_or_in_the_background(talk: DatabaseStore) -> None:
    for user, context in (("alice", alice()), ("bob", bob())):
        await talk.save_thread(thread("u", title="old PEARL"), context)
        for number in range(450):
            await talk.add_thread_item("u", user_message("u", f"{user}{number}", f"PEARL {number}"), context)
    unindexed = "SELECT user_id, count(*) AS count FROM chat_messages WHERE search_words IS NULL GROUP BY 1 ORDER BY 1"
    for table in ("chat_messages", "chat_sessions"):
        await execute(talk, f"UPDATE {table} SET search_words = NULL")
    assert await found(talk, "pearl 449") == ["alice449"]
    assert [dict(row) for row in await stored(talk, unindexed)] == [{"user_id": "bob", "count": 450}]
    assert await talk.search_index.fill() == 451
    assert await stored(talk, unindexed) == []
    assert (await found(talk, "pearl 17", "bob"), await found(talk, '"old pearl"', "bob")) == (["bob17"], [None])


async def test_a_message_that_is_written_while_it_is_indexed_keeps_its_newer_words(talk: DatabaseStore) -> None:
    await talk.add_thread_item("t", assistant_message("t", "a", "older"), alice())
    await execute(talk, "UPDATE chat_messages SET search_words = NULL")
    rows = await talk.database.run("alice", search_sql.LIST_UNINDEXED)
    await talk.save_item("t", assistant_message("t", "a", "newer"), alice())
    assert await talk.search_index.index(rows) == 0
    assert (await found(talk, "older"), await found(talk, "newer")) == ([], ["a"])


async def test_an_answer_to_a_question_is_found_with_it(talk: DatabaseStore) -> None:
    asked = StructuredInputItem(
        id="q", thread_id="t", created_at=NAIVE, inputs=[StructuredInputFreeform(id="where", question="Which city?")]
    )
    await talk.add_thread_item("t", asked, alice())
    assert await found(talk, "reykjavik") == []
    answer = StructuredInputAnswer(values=["Reykjavik"])
    inputs = [asked.inputs[0].model_copy(update={"answer": answer})]
    answered = asked.model_copy(update={"status": "answered", "inputs": inputs})
    await talk.turns.settle(
        "t", answered, RequestContext("alice", session=WriteSession("threads.add_structured_input"))
    )
    assert await found(talk, "reykjavik") == await found(talk, "city") == ["q"]
    assert await found(talk, "reykjavik", "bob") == []
