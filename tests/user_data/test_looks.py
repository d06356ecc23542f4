"""`user show`, `thread show`, `usage`, `feedback` and `audit`: what operators see, and that it is written down."""

import asyncio
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from chatkit.types import HiddenContextItem
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from chatkit_postgres.cli import cli
from chatkit_postgres.db import Database, Statement
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.sql import reports
from chatkit_postgres.user_data.looks import thread_records, user_record
from tests.isolation.test_owners import _COMPARED
from tests.isolation.user_data import UserData, store_user_data
from tests.support.items import NAIVE, assistant_message, thread, user_message

ALICE = UserData("alice", "MARK", is_answered=True)
BOB = UserData("bob", "SECRET")
POISON = "=cmd()\x1b[31m\x07 a\u202eb\r;+1"


@pytest.fixture
def run(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CHAT_JWT_SECRET", "s" * 48)
    monkeypatch.setenv("SUDO_USER", "operator")

    async def store_all() -> None:
        store = DatabaseStore(Database(database_url))
        for user_data in (ALICE, BOB):
            await store_user_data(store, user_data)
            await store.save_thread(thread("thr_shared"), user_data.context)
        await store.save_thread(thread("thr_poison", title=POISON), ALICE.context)
        hidden = HiddenContextItem(id="h", thread_id="thr_poison", created_at=NAIVE, content=f"hidden {POISON}")
        for item in (user_message("thr_poison", "q", POISON), assistant_message("thr_poison", "a", POISON), hidden):
            await store.add_thread_item("thr_poison", item, ALICE.context)
        await store.items.save_feedback("thr_poison", ["a"], "negative", ALICE.context)
        await store.close()

    asyncio.run(store_all())

    def running(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return running


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_a_user(run: Callable[..., Result]) -> None:
    shown = run("user", "show", "alice")
    assert shown.exit_code == 0, shown.output
    assert "threads   5, with" in shown.stdout
    assert "thr_poison" in shown.stdout
    assert is_harmless(shown.stdout)
    document = json.loads(run("user", "show", "alice", "--json").stdout)
    assert (document["user"], document["threads"], document["liked"], document["disliked"]) == ("alice", 5, 1, 1)
    assert document["running_turns"] == 1
    absent = run("user", "show", "nobody")
    assert (absent.exit_code, absent.stdout) == (1, "")


def test_a_thread(run: Callable[..., Result]) -> None:
    shown = run("thread", "show", "thr_poison", "--user", "alice")
    assert shown.exit_code == 0, shown.output
    assert is_harmless(shown.stdout)
    heads = [line.partition("Z  ")[2] for line in shown.stdout.splitlines() if line.startswith("20")]
    assert heads == ["user message", "assistant message", "hidden context item"]
    assert "hidden =cmd()" in shown.stdout
    kinds: set[str] = set()
    for thread_id in (ALICE.thread, ALICE.asking_thread):
        records = list(
            map(json.loads, run("thread", "show", thread_id, "--user", "alice", "--json").stdout.splitlines())
        )
        assert (records[0]["type"], records[0]["id"]) == ("thread", thread_id)
        assert all("MARK" in json.dumps(record) for record in records if record["type"] == "tool_call")
        kinds |= {record["type"] for record in records}
    assert kinds == {"thread", "item", "tool_call", "turn"}
    readable = run("thread", "show", ALICE.asking_thread, "--user", "alice").stdout
    assert "tool look\n" in readable
    assert "[threads.add_user_message waiting]" in readable
    # Of somebody who has only the id.
    assert run("thread", "show", ALICE.asking_thread).stdout == readable
    assert "several users" in run("thread", "show", "thr_shared").stderr
    assert run("thread", "show", "thr_no").exit_code == 1
    for user, thread_id in (("alice", BOB.thread), ("nobody", ALICE.thread), ("alice", "thr_no")):
        absent = run("thread", "show", thread_id, "--user", user)
        assert (absent.exit_code, absent.stdout) == (1, "")


def test_each_look_is_an_entry(run: Callable[..., Result]) -> None:
    run("user", "show", "alice")
    run("thread", "show", ALICE.thread, "--user", "alice")
    run("user", "show", "nobody")
    run("feedback")
    run("usage")
    listed = [line.split("\t") for line in run("audit", "list").stdout.splitlines()]
    assert [(line[2], line[3], line[4], line[5]) for line in listed if line[5] != listed[2][5]] == [
        ("operator", "command", "user.show", "alice"),
        ("operator", "command", "thread.show", "alice"),
        ("operator", "command", "feedback", "-"),
    ]
    # Nobody is named by a hash.
    assert len(listed[2][5]) == 64
    assert run("audit", "list", "--user", "nobody").stdout.splitlines() == ["\t".join(listed[2])]
    verified = run("audit", "verify")
    assert verified.exit_code == 0
    head = verified.stdout.strip()
    assert head.startswith("4:")
    assert run("audit", "verify", "--head", head).exit_code == 0
    assert run("audit", "verify", "--head", head.replace("4:", "5:")).exit_code == 1
    assert run("audit", "verify", "--head", "x").exit_code == 1


def test_usage(run: Callable[..., Result]) -> None:
    rows = [line.split("\t") for line in run("usage").stdout.splitlines()]
    assert {row[0] for row in rows} == {"alice", "bob"}
    assert run("usage", "--limit", "1").stdout.count("\n") == 1
    days = [line.split("\t") for line in run("usage", "--user", "alice").stdout.splitlines()]
    assert [day[1:] for day in days] == [row[1:] for row in rows if row[0] == "alice"]
    assert run("usage", "--days", "0").exit_code == 2


def test_feedback(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkit_postgres.cli.reports.PAGE", 1)
    table = list(csv.DictReader(io.StringIO(run("feedback", "--csv").stdout)))
    assert [(row["user"], row["kind"]) for row in table] == [
        ("alice", "negative"),
        ("bob", "positive"),
        ("alice", "positive"),
    ]
    assert table[0]["answer"] == table[0]["question"] == "'=cmd()\ufffd[31m\ufffd a\ufffdb\n;'+1"
    assert is_harmless(run("feedback", "--csv").stdout)
    disliked = csv.DictReader(io.StringIO(run("feedback", "--csv", "--kind", "negative").stdout))
    assert [(row["user"], row["kind"]) for row in disliked] == [("alice", "negative")]
    assert is_harmless(run("feedback").stdout)


READING: list[Statement] = [
    reports.FIND_USER,
    reports.SHOW_USER,
    reports.LIST_ENDS_OF_TURNS,
    reports.LIST_RECORDS_OF_THREAD,
]


@pytest.mark.parametrize("statement", READING, ids=lambda statement: str(statement.name))
async def test_a_statement_that_forgets_its_owner_is_noticed(store: DatabaseStore, statement: Statement) -> None:
    hers = await store_user_data(store, UserData("alice", "MARK"))
    await store_user_data(store, replace(hers, user="bob", mark="SECRET", is_answered=True))

    async def seen() -> list[Any]:
        found = await store.database.run("nobody", reports.FIND_USER)
        records = [record async for record in thread_records(store.database, "alice", hers.thread)]
        return [len(found), await user_record(store.database, "alice"), records]

    before, original = await seen(), statement.driver_sql
    assert "SECRET" not in json.dumps(before)
    forgetful = _COMPARED.sub("(:owner IS NOT NULL)", statement.sql)
    statement.driver_sql = Statement(statement.name, forgetful, **statement.types).driver_sql
    try:
        assert await seen() != before
    finally:
        statement.driver_sql = original
