"""Fills a database with the threads of many users, as they are after years of use.

A twentieth of the messages counts the threads of one heavy owner, and a two-hundredth the items of one long thread:
100,000 threads and 10,000 items among two million messages. Every other user has ten threads of twenty messages.
"""

import random
from dataclasses import dataclass

import asyncpg

from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.rows import item_row
from chatkit_postgres.store.words import tsvector_of
from tests.support.items import assistant_message, user_message

HEAVY_USER, LONG_USER, FIRST_ORDINARY_USER = 0, 1, 2
THREADS, ITEMS = 10, 20
"""Of an ordinary owner, and of each of the owner's threads."""
TEXT = "Where is my order, and what can I do when it does not arrive in time? " * 3


@dataclass(frozen=True)
class Filled:
    """What is in a database of ``messages`` messages."""

    messages: int

    @property
    def heavy_threads(self) -> int:
        return self.messages // 20

    @property
    def long_items(self) -> int:
        return max(ITEMS, self.messages // 200)

    @property
    def ordinary_users(self) -> int:
        return max(THREADS, (self.messages - 2 * self.heavy_threads - self.long_items) // (THREADS * ITEMS))

    def threads(self) -> list[tuple[int, str, int]]:
        """User, thread id and number of items of each thread."""
        found = [(HEAVY_USER, thread_id(HEAVY_USER, number), 2) for number in range(self.heavy_threads)]
        found.append((LONG_USER, thread_id(LONG_USER, 0), self.long_items))
        for user in range(FIRST_ORDINARY_USER, FIRST_ORDINARY_USER + self.ordinary_users):
            found += [(user, thread_id(user, number), ITEMS) for number in range(THREADS)]
        return found


def thread_id(user: int, number: int) -> str:
    return f"thr_{user:08x}{number:024x}"


# Message ids are not those that belong to the item ids; no measured request looks one up.
_FILL = """
INSERT INTO chat_users (user_id) SELECT DISTINCT user_id FROM wanted;
INSERT INTO chat_sessions (user_id, session_id, thread_id, title, created_at, updated_at, next_position, search_words)
SELECT user_id, session_id, thread_id, 'An order', now() - number * interval '1 second', now(), items + 1,
       'order'::tsvector FROM wanted;
INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, started_at, heartbeat_at, ended_at)
SELECT user_id, session_id, md5(thread_id || 'turn' || turn)::uuid, 'threads.add_user_message', 'completed', moment,
       moment, moment
  FROM wanted
 CROSS JOIN generate_series(1, items / 2) turn
 CROSS JOIN LATERAL (SELECT now() - number * interval '1 second' AS moment) started;
INSERT INTO chat_messages (user_id, session_id, message_id, item_id, position, sender_type, item_type, content, item,
                           turn_id, search_words)
SELECT user_id, session_id, md5(item_id)::uuid, item_id, position, sender_type, item_type, content,
       template || jsonb_build_object('id', item_id, 'thread_id', thread_id),
       md5(thread_id || 'turn' || (position + 1) / 2)::uuid, template_words || array_to_tsvector(ARRAY['@' || user_id])
  FROM wanted
 CROSS JOIN generate_series(1, items) position
 CROSS JOIN LATERAL (SELECT 'msg_' || md5(thread_id || position) AS item_id) named
  JOIN templates ON is_odd = (position % 2 = 1);
"""


async def fill(connection: asyncpg.Connection, filled: Filled) -> None:
    threads = filled.threads()
    # The rows of one owner are not neighbours on the disk.
    random.Random(1).shuffle(threads)  # noqa: S311 - not for secrets
    await connection.execute("SET session_replication_role = replica")  # no check of foreign keys, row by row
    await connection.execute(
        "CREATE TEMP TABLE wanted (number bigint, user_id text, session_id uuid, thread_id text, items int)"
    )
    await connection.copy_records_to_table(
        "wanted",
        records=[
            (number, f"user-{user}", session_uuid(name), name, items)
            for number, (user, name, items) in enumerate(threads)
        ],
    )
    await connection.execute(
        "CREATE TEMP TABLE templates (is_odd boolean, sender_type text, item_type text, content text, template jsonb,"
        " template_words tsvector)"
    )
    rows = (item_row(made("thread", "item", TEXT)) for made in (user_message, assistant_message))
    await connection.executemany(
        "INSERT INTO templates VALUES ($1, $2, $3, $4, $5, CAST($6::text AS tsvector))",
        [
            (row.sender_type == "user", row.sender_type, row.item_type, row.content, row.item, tsvector_of(row.content))
            for row in rows
        ],
    )
    await connection.execute("ANALYZE wanted")
    await connection.execute(_FILL)
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")
