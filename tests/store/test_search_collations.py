"""Search in databases that sort and fold text by other rules than PostgreSQL's own."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack

import asyncpg
import pytest
from sqlalchemy import URL

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, migrations
from chatkit_postgres.store import DatabaseStore
from tests.conftest import fresh_database
from tests.search.languages import SCRIPTS
from tests.support.items import thread, user_message

WITHOUT_ICU = "LOCALE 'C.UTF-8'"
COLLATIONS = {
    "Turkish": "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'",
    "case is ignored": "LOCALE_PROVIDER icu ICU_LOCALE 'und-u-ks-level2'",
    "C.UTF-8": WITHOUT_ICU,
}


@pytest.fixture(params=COLLATIONS)
async def store(request: pytest.FixtureRequest, postgres: URL) -> AsyncIterator[DatabaseStore]:
    with ExitStack() as stack:
        try:
            made = fresh_database(postgres, f"TEMPLATE template0 {COLLATIONS[request.param]}")
            url = await asyncio.to_thread(stack.enter_context, made)
        except asyncpg.FeatureNotSupportedError:
            # The embedded PostgreSQL is built without ICU; Debian's, on which CI runs this folder too, is not.
            made = fresh_database(postgres, f"TEMPLATE template0 {WITHOUT_ICU}")
            url = await asyncio.to_thread(stack.enter_context, made)
        await asyncio.to_thread(migrations.upgrade, url)
        opened = DatabaseStore(Database(url))
        yield opened
        await opened.close()


@pytest.mark.parametrize("name", ["Latin", "Cyrillic"])
async def test_generated_messages_and_queries(store: DatabaseStore, name: str) -> None:
    script, dice = SCRIPTS[name], random.Random(name)
    sentences = {f"m{number}": script.sentence(dice) for number in range(20)}
    for user in ("alice", "Alice", "I\u0307", "i"):
        await store.save_thread(thread("t"), RequestContext(user))
    for item_id, sentence in sentences.items():
        await store.add_thread_item("t", user_message("t", item_id, sentence.text), RequestContext("alice"))
    hits = 0
    for _ in range(30):
        query, is_found = script.query(dice, list(sentences.values()))
        found = await store.search.search(query, RequestContext("alice"), limit=100)
        expected = {item_id for item_id, sentence in sentences.items() if is_found(sentence)}
        assert {hit.item_id for hit in found.data} == expected, query
        hits += len(expected)
        for other in ("Alice", "I\u0307", "i"):
            assert (await store.search.search(query, RequestContext(other), limit=100)).data == []
    assert hits > 20
