"""Every statement of every migration, on a database that has served for years: how long it takes, and what it locks."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import URL, event
from sqlalchemy.engine import Engine

from chatkit_postgres.db import migrations
from chatkit_postgres.db.connecting import connector
from tests.upgrade.locks import Locks
from tests.upgrade.test_rolling import MAX_LOCK_SECONDS, print_lines

MESSAGES_OF_A_THREAD = 20
ATTEMPTS = 3

# By the columns of the first revision. A turn for every two messages, and a file for every twenty.
_FILL = """
INSERT INTO chat_users (user_id) SELECT 'user-' || n FROM generate_series(0, :users - 1) n;
INSERT INTO chat_sessions (user_id, session_id, thread_id, title, next_position)
SELECT 'user-' || n % :users, md5('thread ' || n)::uuid, 'thr_' || n, 'An order', 21
  FROM generate_series(0, :threads - 1) n;
INSERT INTO chat_messages
       (user_id, session_id, message_id, item_id, position, sender_type, item_type, content, item)
SELECT 'user-' || n % :users, md5('thread ' || n)::uuid, md5(n || ' ' || p)::uuid, 'msg_' || p, p,
       CASE p % 2 WHEN 0 THEN 'assistant' ELSE 'user' END,
       CASE p % 2 WHEN 0 THEN 'assistant_message' ELSE 'user_message' END,
       repeat('Where is my order? ', 8), jsonb_build_object('id', 'msg_' || p, 'text', repeat('Where is it? ', 8))
  FROM generate_series(0, :threads - 1) n, generate_series(1, 20) p;
INSERT INTO chat_turns (user_id, session_id, turn_id, operation, state, ended_at, usage)
SELECT 'user-' || n % :users, md5('thread ' || n)::uuid, md5(n || ' turn ' || p)::uuid, 'threads.add_user_message',
       'completed', now(), '{"input_tokens": 70, "output_tokens": 50}'
  FROM generate_series(0, :threads - 1) n, generate_series(1, 10) p;
INSERT INTO chat_attachments (user_id, attachment_id, session_id, state, attachment)
SELECT 'user-' || n % :users, 'atc_' || n, md5('thread ' || n)::uuid, 'ready', '{}'
  FROM generate_series(0, :threads - 1) n;
ANALYZE
"""


async def fill(url: URL, messages: int) -> None:
    threads = max(1, messages // MESSAGES_OF_A_THREAD)
    connection = await connector(url, command_timeout=None)()
    try:
        for statement in _FILL.split(";\n"):
            await connection.execute(
                statement.replace(":users", str(max(1, threads // 10))).replace(":threads", str(threads))
            )
    finally:
        await connection.close()


@contextmanager
def timed() -> Iterator[list[tuple[str, float]]]:
    """The statements of all engines, with the seconds that each takes."""
    found: list[tuple[str, float]] = []

    def before(connection: Any, *_: Any) -> None:
        connection.info["began"] = time.monotonic()

    def after(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append((" ".join(statement.split()), time.monotonic() - connection.info["began"]))

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "after_cursor_execute", after)


@pytest.mark.timeout(1800)
def test_no_migration_keeps_the_service_waiting(request: pytest.FixtureRequest, empty_url: URL) -> None:
    messages: int = request.config.getoption("--upgrade-rows")
    config = migrations._config(empty_url)
    first, *later = reversed([script.revision for script in ScriptDirectory.from_config(config).walk_revisions()])
    command.upgrade(config, first)
    asyncio.run(fill(empty_url, messages))
    lines, held = [f"on {messages:,} messages:"], dict[str, float]()
    for before, revision in pairwise([first, *later]):
        for _ in range(ATTEMPTS):
            with timed() as statements, Locks(empty_url).watched() as locks:
                command.upgrade(config, revision)
            if max(locks.held.values(), default=0) < MAX_LOCK_SECONDS:
                break
            # It may have been the machine, which does other things, too.
            lines.append(f"{revision} too long: {locks.held}")
            command.downgrade(config, before)
        else:
            held |= {f"{revision}: {mode} of {table}": seconds for (table, mode), seconds in locks.held.items()}
            command.upgrade(config, revision)
        own = [(sql, seconds) for sql, seconds in statements if "chat_" in sql and "alembic" not in sql]
        lines += [f"{revision} {seconds * 1000:8.0f} ms  {sql[:90]}" for sql, seconds in own if is_change(sql)]
        lines += [
            f"{revision} {seconds * 1000:8.0f} ms  held: {mode} of {table}"
            for (table, mode), seconds in sorted(locks.held.items())
        ]
    print_lines(request, lines)
    assert held == {}


def is_change(sql: str) -> bool:
    return sql.startswith(("ALTER", "CREATE", "DROP", "LOCK", "UPDATE", "INSERT", "DELETE"))
