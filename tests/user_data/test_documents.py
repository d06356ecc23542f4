"""The documents about data: every column, the reports, and the way in from the Agents SDK's sessions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from agents.extensions.memory import SQLAlchemySession
from sqlalchemy import URL, text
from sqlalchemy.dialects import postgresql

from chatkit_postgres.attachments.object_storage import ObjectStorage
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db.tables import metadata
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.user_data.archive import ArchiveReader
from chatkit_postgres.user_data.importing import Import
from tests.faults.harness import new_user
from tests.isolation.user_data import UserData, store_user_data
from tests.support.items import user_message
from tests.support.processes import ROOT, texts
from tests.support.sql import sql_connection

SCHEMA = (ROOT / "docs" / "schema.md").read_text()
YOUR_DATA = (ROOT / "docs" / "your-data.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([\w ]+) \| \S", re.MULTILINE)
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's
TYPES = {"timestamp with time zone": "timestamptz"}


@pytest.mark.parametrize("name", metadata.tables)
def test_every_column_is_described(name: str) -> None:
    section = SCHEMA.partition(f"## {name}\n")[2].partition("\n## ")[0]
    written = [(column.name, str(column.type.compile(DIALECT)).lower()) for column in metadata.tables[name].columns]
    assert ROW.findall(section) == [(column, TYPES.get(kind, kind)) for column, kind in written]


def test_no_table_is_described_that_does_not_exist() -> None:
    assert sorted(re.findall(r"^## (chat_\w+)$", SCHEMA, re.MULTILINE)) == sorted(metadata.tables)


async def test_the_reports_run(store: DatabaseStore) -> None:
    await store_user_data(store, UserData("alice", "MARK"))
    reports = re.findall(r"```sql\n(.*?)```", SCHEMA, re.DOTALL)
    assert len(reports) == 5
    async with sql_connection(store.database) as connection:
        await connection.execute(text("UPDATE chat_feedback SET kind = 'negative'"))
        for report in reports:
            found = (await connection.exec_driver_sql(report)).all()
            assert found, report


async def test_sessions_of_the_agents_sdk_are_imported(store: DatabaseStore, database_url: URL, tmp_path: Path) -> None:
    """As the document says, line by line."""
    address = database_url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    for number, thread in enumerate(("first", "second")):
        session = SQLAlchemySession.from_url(thread, url=address, create_tables=True)
        await session.add_items(
            [
                {"role": "user", "content": f"Question {number}"},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "found"},
                {
                    "type": "message",
                    "id": "m",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": f"Answer {number}", "annotations": []}],
                },
                {"role": "user", "content": [{"type": "input_text", "text": "And why?"}]},
            ]
        )
        await session.engine.dispose()
    (program,) = re.findall(r"```python sessions_to_jsonl.py\n(.*?)```", YOUR_DATA, re.DOTALL)
    (tmp_path / "sessions_to_jsonl.py").write_text(program)
    lines = subprocess.run(  # noqa: ASYNC221
        [sys.executable, tmp_path / "sessions_to_jsonl.py", address], capture_output=True, check=True, timeout=60
    ).stdout
    (tmp_path / "threads.jsonl").write_bytes(lines)
    user = new_user()
    importing = Import(store.database, ObjectStorage.in_directory(tmp_path / "files"), user)
    async for _ in importing.run(ArchiveReader(tmp_path / "threads.jsonl")):
        pass
    assert dict(importing.report.imported) == {"user": 1, "thread": 2, "item": 6}
    context = RequestContext(user)
    page = await store.load_thread_items("second", None, 10, "asc", context)
    assert texts([item.model_dump() for item in page.data]) == ["Question 1", "Answer 1", "And why?"]
    assert [hit.thread_id for hit in (await store.search.search('"answer 0"', context)).data] == ["first"]
    # The thread goes on.
    await store.add_thread_item("second", user_message("second", "new"), context)
    assert (await store.load_thread_items("second", None, 1, "desc", context)).data[0].id == "new"
