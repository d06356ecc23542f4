"""The time of a search through the HTTP API, among millions of messages of which one owner has a tenth.

The words of the messages are as frequent as those of a language. Words to look for rotate: half of them as people write
them, so that most are common, half from the whole vocabulary, so that most are rare. Searches begin at fixed times,
whether those before them have ended or not.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from benchmarks.counters import connection_to
from benchmarks.sides import OURS, Side, running, signed_in
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.rows import item_row
from chatkit_postgres.store.sql.index_entry import indexed
from chatkit_postgres.store.words import owner_lexeme, tsvector_of
from tests.support.items import user_message
from tests.support.processes import ModelServer

HEAVY_USER, FIRST_ORDINARY_USER, ORDINARY_USERS = 0, 1, 20_000
DAYS = 730
"""Since the first message."""

HEAVY_PART = 0.1
VOCABULARY = 50_000
WORDS = (5, 30)
BATCH = 20_000
ITEMS = 20
"""Of a thread."""

SEARCHES = 600
PER_SECOND = 20

TEXTS = 50_000
"""Different ones; each message has one of them."""

_PREPARE = """
CREATE TEMPORARY TABLE texts (number bigint PRIMARY KEY, content text, words tsvector);
CREATE TEMPORARY TABLE owners (number bigint PRIMARY KEY, user_id text, mark text);
CREATE TEMPORARY TABLE sessions (user_number bigint, place bigint, session_id uuid, thread_id text);
CREATE TEMPORARY TABLE staging (user_number bigint, place bigint, text_number bigint, created_at timestamptz);
CREATE TEMPORARY TABLE templates (template jsonb);
"""
# Message ids are not those that belong to the item ids; no search looks one up.
_STORE = f"""
INSERT INTO chat_sessions (user_id, session_id, thread_id, created_at, search_words)
SELECT user_id, session_id, thread_id, min(created_at), ''::tsvector
  FROM staging JOIN owners ON number = user_number
  JOIN sessions USING (user_number) WHERE sessions.place = staging.place / {ITEMS}
 GROUP BY 1, 2, 3
    ON CONFLICT DO NOTHING;
INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type, content, item,
                           created_at, search_words)
SELECT user_id, session_id, md5(item_id)::uuid, item_id, staging.place % {ITEMS} + 1, 'user', 'user_message', content,
       template || jsonb_build_object('id', item_id, 'thread_id', thread_id, 'content', jsonb_build_array(
         jsonb_build_object('type', 'input_text', 'text', content))), created_at,
       {indexed("words", "mark", "created_at")}
  FROM staging
  JOIN owners ON owners.number = user_number
  JOIN texts ON texts.number = text_number
  JOIN sessions ON sessions.user_number = staging.user_number AND sessions.place = staging.place / {ITEMS}
 CROSS JOIN LATERAL (SELECT concat('msg_', thread_id, '_', staging.place) AS item_id) named
 CROSS JOIN templates;
TRUNCATE staging, sessions;
"""


class Language:
    """Words, of which a few are said often and most are rare."""

    def __init__(self) -> None:
        dice = random.Random(1)  # noqa: S311 - not for secrets
        syllables = [first + second for first in "bcdfghjklmnpqrstvwz" for second in "aeiou"]
        words = ("".join(dice.choices(syllables, k=dice.randint(1, 4))) for _ in itertools.count())
        self.words = list(itertools.islice(dict.fromkeys(itertools.islice(words, 4 * VOCABULARY)), VOCABULARY))
        self._frequencies = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(self.words))))

    def say(self, dice: random.Random, count: int) -> list[str]:
        return dice.choices(self.words, cum_weights=self._frequencies, k=count)


@dataclass(frozen=True)
class Kind:
    title: str
    query: Callable[[Language, random.Random], str]


KINDS = [
    Kind("a word as people write", lambda language, dice: language.say(dice, 1)[0]),
    Kind("a word of the vocabulary", lambda language, dice: dice.choice(language.words)),
    Kind("two words", lambda language, dice: " ".join(language.say(dice, 2))),
    Kind("a phrase", lambda language, dice: f'"{" ".join(language.say(dice, 2))}"'),
    Kind("a word without another", lambda language, dice: " -".join(language.say(dice, 2))),
]


async def measure(database: URL, directory: Path, messages: int) -> None:
    language = Language()
    started = time.perf_counter()
    async with connection_to(database) as connection:
        await _fill(connection, language, messages)
        sizes = await connection.fetchrow(
            "SELECT pg_size_pretty(pg_table_size('chat_messages')), pg_size_pretty(pg_relation_size("
            "'chat_messages_search')), (SELECT count(*) FROM chat_messages WHERE user_id = 'user-0')"
        )
    print(
        f"{messages} messages, {sizes[0]}, of which one owner has {sizes[2]}; search index {sizes[1]};"
        f" filled in {time.perf_counter() - started:.0f} s"
    )
    async with _server(database, directory) as side:
        print(f"{'milliseconds of ' + str(SEARCHES) + ' searches':38}{'median':>9}{'p95':>9}{'maximum':>9}{'found':>8}")
        for title, kind, whose in _cases():
            times, found = await _times(side, language, kind, whose)
            at = statistics.quantiles(times, n=100)
            print(f"{title:38}{at[49]:9.1f}{at[94]:9.1f}{max(times):9.1f}{found / len(times):8.1f}")


def _cases() -> Sequence[tuple[str, Sequence[Kind], Callable[[int], int]]]:
    def heavy(_: int) -> int:
        return HEAVY_USER

    def ordinary(number: int) -> int:
        return FIRST_ORDINARY_USER + number * 7919 % ORDINARY_USERS

    cases: list[tuple[str, Sequence[Kind], Callable[[int], int]]] = [(kind.title, [kind], heavy) for kind in KINDS]
    return [*cases, ("all kinds, heavy owner", KINDS, heavy), ("all kinds, ordinary owners", KINDS, ordinary)]


async def _times(
    side: Side, language: Language, kinds: Sequence[Kind], whose: Callable[[int], int]
) -> tuple[list[float], int]:
    """Milliseconds of each search, from the time at which it was to begin; and how much was found."""
    dice = random.Random(2)  # noqa: S311 - not for secrets
    begin = time.perf_counter() + 0.5
    found = 0

    async def search(number: int, query: str) -> float:
        nonlocal found
        due = begin + number / PER_SECOND
        await asyncio.sleep(due - time.perf_counter())
        response = await side.client.get("/api/search", params={"q": query}, headers=signed_in(whose(number)))
        if response.status_code != 200:
            raise RuntimeError(f"search: {response.status_code} {response.text}")
        found += len(response.json()["data"])
        return 1000 * (time.perf_counter() - due)

    queries = [kinds[number % len(kinds)].query(language, dice) for number in range(SEARCHES)]
    times = await asyncio.gather(*(search(number, query) for number, query in enumerate(queries)))
    return list(times), found


@asynccontextmanager
async def _server(database: URL, directory: Path) -> AsyncIterator[Side]:
    model = ModelServer()
    try:
        async with running(OURS, database, model, directory / "search") as side:
            yield side
    finally:
        model.close()


async def _fill(connection: asyncpg.Connection, language: Language, messages: int) -> None:
    dice = random.Random(3)  # noqa: S311 - not for secrets
    now = datetime.now(UTC)
    indexes = {
        name: str(await connection.fetchval("SELECT pg_get_indexdef($1::regclass)", name))
        for name in ("chat_messages_search", "chat_messages_unindexed")
    }
    for name in indexes:
        await connection.execute(f"DROP INDEX {name}")
    await connection.execute("SET session_replication_role = replica")  # no check of foreign keys, row by row
    await connection.execute(_PREPARE)
    await connection.execute("INSERT INTO templates VALUES ($1)", item_row(user_message("t", "m")).item)
    texts = [" ".join(language.say(dice, dice.randint(*WORDS))) for _ in range(TEXTS)]
    await connection.executemany(
        "INSERT INTO texts VALUES ($1, $2, CAST($3::text AS tsvector))",
        [(number, text, tsvector_of(text)) for number, text in enumerate(texts)],
    )
    users = [(number, f"user-{number}") for number in range(ORDINARY_USERS + 1)]
    owners = [(number, user, owner_lexeme(user)) for number, user in users]
    await connection.copy_records_to_table("owners", records=owners)
    await connection.execute("INSERT INTO chat_users (user_id) SELECT user_id FROM owners; ANALYZE texts, owners")
    places = Counter[int]()
    for first in range(0, messages, BATCH):
        rows, sessions = [], {}
        for number in range(first, min(first + BATCH, messages)):
            user = HEAVY_USER if dice.random() < HEAVY_PART else FIRST_ORDINARY_USER + dice.randrange(ORDINARY_USERS)
            place = places[user]
            places[user] += 1
            thread = f"thr_{user:08x}{place // ITEMS:024x}"
            sessions[thread] = (user, place // ITEMS, session_uuid(thread), thread)
            rows.append((user, place, dice.randrange(TEXTS), now - timedelta(days=DAYS) * (1 - number / messages)))
        await connection.copy_records_to_table("staging", records=rows)
        await connection.copy_records_to_table("sessions", records=list(sessions.values()))
        await connection.execute(_STORE)
    for definition in indexes.values():
        await connection.execute(definition)
    await connection.execute("VACUUM ANALYZE chat_messages")
    await connection.execute("VACUUM ANALYZE chat_sessions")
    await connection.execute("CHECKPOINT")
