"""Behind pgbouncer, which gives each transaction whichever connection is free."""

import asyncio
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chatkit.types import ThreadMetadata
from sqlalchemy import URL

from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database, migrations
from chatkit_postgres.db.unprivileged import unprivileged_user
from chatkit_postgres.store import DatabaseStore
from tests.conftest import query
from tests.support.chat import message
from tests.support.processes import free_port

CONNECTIONS = 3

CONFIGURATION = """
[databases]
chat = host={host} port=5432 dbname={database} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
"""


@pytest.fixture
def pooled(empty_url: URL, tmp_path: Path) -> Iterator[str]:
    """The address of a pooler in front of an empty database."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    port = free_port()
    file = tmp_path / "pgbouncer.ini"
    file.write_text(
        CONFIGURATION.format(
            host=empty_url.query["host"], database=empty_url.database, port=port, connections=CONNECTIONS
        )
    )
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        process = unprivileged_user(tmp_path).popen([program, "--quiet", str(file)], log)
        try:
            _wait(port)
            yield f"postgresql://postgres@127.0.0.1:{port}/chat?pgbouncer=true"
        finally:
            process.terminate()
            process.wait(10)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("pgbouncer did not start")


def test_it_migrates_and_serves_many_users_over_a_few_connections(pooled: str, empty_url: URL) -> None:
    migrations.upgrade(Database(pooled, pooled=False).url)

    async def talk() -> None:
        databases = [Database(pooled, pool_size=10) for _ in range(2)]
        stores = [DatabaseStore(database) for database in databases]

        async def one(number: int) -> None:
            store, context = stores[number % 2], RequestContext(user_id=f"user-{number}")
            thread = ThreadMetadata(id=f"thr_{number}", created_at=message("x").created_at)
            await store.save_thread(thread, context)
            for item in range(5):
                await store.add_thread_item(thread.id, message(f"msg_{number}_{item}", "words"), context)
            page = await store.load_thread_items(thread.id, None, 10, "asc", context)
            assert [item.id for item in page.data] == [f"msg_{number}_{item}" for item in range(5)]
            hits = await store.search.search("words", context, limit=10)
            assert [hit.item_id for hit in hits.data] == [f"msg_{number}_{item}" for item in reversed(range(5))]

        async with asyncio.TaskGroup() as users:
            for number in range(40):
                users.create_task(one(number))
        for database in databases:
            await database.close()

    asyncio.run(talk())
    assert query(empty_url, "SELECT count(*) FROM chat_messages")[0]["count"] == 200
    seen = query(empty_url, f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{empty_url.database}'")
    assert seen[0]["count"] <= CONNECTIONS + 1
