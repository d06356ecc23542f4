"""Hosted threads come here whole: from a slow and failing API, from a dump, once more, and after kills."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import ClientToolCallItem, ThreadItem, UserMessageItem
from openai.types.beta.chatkit import ChatKitThread
from sqlalchemy import URL, text
from typer.testing import CliRunner

from chatkit_postgres.attachments.storage import NoStorage
from chatkit_postgres.cli import cli
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.user_data.hosted.convert import converted
from chatkit_postgres.user_data.hosted.dump import BadDumpError, Dump
from chatkit_postgres.user_data.hosted.importing import HostedImport
from chatkit_postgres.user_data.hosted.source import HostedApi, HostedError, HostedThread
from tests.support import hosted_api
from tests.support.hosted_api import KEY, KINDS, hosted_item, hosted_threads, served
from tests.support.processes import ROOT, clean_environment
from tests.support.sql import sql_connection


@pytest.fixture
def busy(request: pytest.FixtureRequest) -> Iterator[tuple[hosted_api.HostedApi, str]]:
    """An API that is slow, and refuses one in 25 requests. Ten threads a user, twenty items a thread."""
    count: int = getattr(request, "param", None) or request.config.getoption("--hosted-threads")
    api = hosted_api.HostedApi(
        *hosted_threads(count // 10, count, count * 20), failures=4, delay_seconds=0.002, page=15
    )
    with served(api) as url:
        yield api, url


def command(*arguments: str, url: str | None = None, database: URL | None = None, wait: bool = True) -> Any:
    own = {"OPENAI_API_KEY": KEY, "CHAT_JWT_SECRET": "s" * 40}
    if database is not None:
        own["DATABASE_URL"] = database.render_as_string(hide_password=False)
    base = ["--base-url", url] if url is not None else []
    process = subprocess.Popen(
        [sys.executable, "-m", "chatkit_postgres", "import-hosted", *arguments, *base],
        env=clean_environment() | own,
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


async def killed_at_random_moments(
    times: int, most: int, progress: Callable[[], Awaitable[int]], *arguments: str, **more: Any
) -> None:
    """Each time after up to ``most`` steps of progress."""
    dice = random.Random(most)
    for _ in range(times):
        wanted = await progress() + dice.randint(1, most)
        process = command(*arguments, **more, wait=False)
        while await progress() < wanted and process.poll() is None:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.005)
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()


async def stored(store: DatabaseStore) -> dict[str, list[str]]:
    """Item ids in their order, by thread."""
    async with sql_connection(store.database) as connection:
        rows = await connection.execute(
            text(
                "SELECT s.user_id, s.thread_id, array_agg(m.item_id ORDER BY m.position) FROM chat_sessions s"
                " JOIN chat_messages m USING (user_id, session_id) GROUP BY 1, 2"
            )
        )
        return {f"{row[0]} {row[1]}": list(row[2]) for row in rows}


def expected(api: hosted_api.HostedApi, users: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    return {
        f"{(users or {}).get(thread.user, thread.user)} {thread.id}": [
            str(vars(item)["id"]) for item in api.items[thread.id]
        ]
        for thread in api.threads
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_from_the_api_after_kills_and_once_more(
    store: DatabaseStore, database_url: URL, busy: tuple[hosted_api.HostedApi, str]
) -> None:
    api, url = busy

    async def requests() -> int:
        return len(api.requests)

    await killed_at_random_moments(5, len(api.threads) // 4, requests, "--api", url=url, database=database_url)
    part = await stored(store)
    assert 0 < len(part) < len(api.threads)
    code, out, err = command("--api", url=url, database=database_url)
    assert (code, err) == (0, "")
    assert await stored(store) == expected(api)
    assert f"thread\t{len(api.threads) - len(part)} imported" in out
    before = [await digest(store), expected(api)]
    code, out, err = command("--api", url=url, database=database_url)
    assert (code, err) == (0, "")
    assert f"item\t0 imported\t{20 * len(api.threads)} there already" in out
    assert [await digest(store), await stored(store)] == before


@pytest.mark.slow
@pytest.mark.parametrize("busy", [60], indirect=True, ids=["busy"])
async def test_a_dump_is_saved_after_kills_without_a_database_and_imported(
    store: DatabaseStore, database_url: URL, busy: tuple[hosted_api.HostedApi, str], tmp_path: Path
) -> None:
    api, url = busy

    async def requests() -> int:
        return len(api.requests)

    async def threads() -> int:
        return len(await stored(store))

    await killed_at_random_moments(2, 40, requests, "--save", str(tmp_path), url=url)
    code, out, _ = command("--save", str(tmp_path), url=url)
    assert (code, out) == (0, f"{tmp_path}: {len(api.threads)} threads, {new_of(out)} items of which are new.\n")
    asked = len(api.requests)
    code, out, _ = command("--save", str(tmp_path), url=url)
    assert (code, new_of(out)) == (0, 0)
    # What is saved is not fetched again: each thread is asked once for what is new.
    assert len(api.requests) - asked < len(api.threads) * 1.2
    users = {f"hosted-{number}": f"auth0|{number}" for number in range(6)}
    (tmp_path / "map.json").write_text(json.dumps(users))
    arguments = ("--dump", str(tmp_path), "--user-map", str(tmp_path / "map.json"))
    await killed_at_random_moments(2, 16, threads, *arguments, database=database_url)
    code, out, err = command(*arguments, database=database_url)
    assert (code, err) == (0, "")
    assert await stored(store) == expected(api, users)
    code, out, err = command(*arguments, database=database_url)
    assert "item\t0 imported\t1200 there already" in out
    assert await stored(store) == expected(api, users)


def new_of(out: str) -> int:
    return int(out.partition(" threads, ")[2].partition(" ")[0])


async def digest(store: DatabaseStore) -> str:
    async with sql_connection(store.database) as connection:
        found = await connection.execute(
            text("SELECT md5(string_agg(m::text, '' ORDER BY user_id, message_id)) FROM chat_messages m")
        )
        return str(found.scalar())


@pytest.fixture
async def small(store: DatabaseStore) -> AsyncIterator[tuple[hosted_api.HostedApi, str, HostedImport]]:
    api = hosted_api.HostedApi(*hosted_threads(2, 6, 72), page=5)
    with served(api) as url:
        yield api, url, HostedImport(store.database, NoStorage())


async def take(url: str, importing: HostedImport, **more: Any) -> None:
    async with HostedApi(KEY, base_url=url, max_retries=2) as source:
        async for thread in source.threads(**more):
            await importing.add(thread)


async def test_all_six_types_arrive_as_what_they_were(
    store: DatabaseStore, small: tuple[hosted_api.HostedApi, str, HostedImport]
) -> None:
    api, url, importing = small
    await take(url, importing)
    assert importing.report.left_out == []
    texts = dict.fromkeys(KINDS, 0)
    for thread in api.threads:
        context = RequestContext(thread.user)
        kept = await store.load_thread(thread.id, context)
        assert (kept.title, kept.status.type) == (thread.title, thread.status.type)
        assert kept.created_at.timestamp() == thread.created_at
        page = await store.load_thread_items(thread.id, None, 100, "asc", context)
        for ours, theirs in zip(page.data, api.items[thread.id], strict=True):
            assert_same(ours, json.loads(theirs.to_json()))
            texts[vars(theirs)["type"]] += 1
    assert set(texts.values()) == {12}
    assert importing.report.placeholders == 12
    assert importing.report.imported["attachment"] == 12


def assert_same(ours: ThreadItem, theirs: Mapping[str, Any]) -> None:
    assert (ours.id, ours.created_at.timestamp()) == (theirs["id"], theirs["created_at"])
    made = json.loads(ours.model_dump_json())
    match theirs["type"]:
        case "chatkit.user_message":
            assert [part["text"] for part in made["content"]] == [theirs["content"][0]["text"]]
            assert made["quoted_text"] == theirs["content"][1]["text"]
            (file,) = theirs["attachments"]
            assert [(a["id"], a["name"], a["type"]) for a in made["attachments"]] == [
                (file["id"], file["name"], "file")
            ]
            wanted = theirs["inference_options"] or {"model": None, "tool_choice": None}
            assert made["inference_options"] == wanted
        case "chatkit.assistant_message":
            assert made["content"][0]["text"] == theirs["content"][0]["text"]
            sources = [annotation["source"] for annotation in made["content"][0]["annotations"]]
            assert (sources[0]["url"], sources[1]["filename"]) == (
                theirs["content"][0]["annotations"][0]["source"]["url"],
                "a.pdf",
            )
        case "chatkit.widget":
            assert made["widget"]["children"][0]["value"] == json.loads(theirs["widget"])["children"][0]["value"]
        case "chatkit.client_tool_call":
            assert made["arguments"] == json.loads(theirs["arguments"])
            assert (made["output"], made["status"]) == (json.loads(theirs["output"]), "completed")
        case "chatkit.task":
            assert made["task"]["title"] == theirs["heading"]
        case "chatkit.task_group":
            assert [task["title"] for task in made["workflow"]["tasks"]] == [t["heading"] for t in theirs["tasks"]]


async def test_a_thread_that_went_on_in_both_places_keeps_both(
    store: DatabaseStore, small: tuple[hosted_api.HostedApi, str, HostedImport]
) -> None:
    api, url, importing = small
    await take(url, importing)
    thread, context = api.threads[0], RequestContext(api.threads[0].user)
    dice = random.Random(1)
    new = hosted_item("chatkit.assistant_message", thread, 999, dice)
    written = UserMessageItem.model_validate(
        {
            "id": "msg_here",
            "thread_id": thread.id,
            "created_at": "2026-11-29T00:00:00Z",
            "content": [],
            "inference_options": {},
        }
    )
    await store.add_thread_item(thread.id, written, context)
    api.items[thread.id].append(new)
    api.threads[1].title = "renamed"
    again = HostedImport(store.database, NoStorage())
    await take(url, again)
    page = await store.load_thread_items(thread.id, None, 100, "asc", context)
    assert [item.id for item in page.data][-2:] == ["msg_here", "cthi_999"]
    assert (again.report.imported["item"], again.report.left_out) == (1, [])


async def test_what_cannot_come_along_is_told(
    store: DatabaseStore, small: tuple[hosted_api.HostedApi, str, HostedImport]
) -> None:
    api, _, importing = small
    thread = json.loads(api.threads[0].to_json())
    items: list[dict[str, Any]] = [json.loads(item.to_json()) for item in api.items[thread["id"]][:6]]
    broken: list[dict[str, Any]] = [
        {"type": "chatkit.hologram", "id": "new", "created_at": 1},
        {"type": "chatkit.widget", "id": "w1", "created_at": 1, "widget": "{"},
        {"type": "chatkit.widget", "id": "w2", "created_at": 1, "widget": '{"type": "Nothing"}'},
        {"type": "chatkit.task", "created_at": 1},
        {"type": "chatkit.task", "id": "t", "created_at": 10**30, "task_type": "custom"},
        {"type": "chatkit.assistant_message", "id": "a", "created_at": 1, "content": [{"text": 5}]},
        {"type": "chatkit.user_message", "id": "u", "created_at": None, "content": []},
        {"type": ["x"], "id": "l", "created_at": 1},
    ]
    await importing.add(HostedThread(thread, items + broken))
    told = [entry.item_id for entry in importing.report.left_out]
    assert told == ["new", "w1", "w2", "None", "t", "a", "u", "l"]
    assert all(entry.reason for entry in importing.report.left_out)
    assert importing.report.imported["item"] == 6
    for wrong in ({"user": "u"}, {"id": "x", "user": " "}, {"id": "x", "user": None}, thread | {"created_at": "x"}):
        await importing.add(HostedThread(wrong, []))
    assert [entry.item_id for entry in importing.report.left_out[8:]] == [""] * 4
    mapped = HostedImport(store.database, NoStorage(), {"somebody": "else"})
    await mapped.add(HostedThread(thread, items))
    assert mapped.report.unmapped == {thread["user"]: 1}
    assert not mapped.report.imported


async def test_one_bad_item_or_file_leaves_the_others(
    store: DatabaseStore, tmp_path: Path, small: tuple[hosted_api.HostedApi, str, HostedImport]
) -> None:
    _, _, importing = small
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    call = {"type": "chatkit.client_tool_call", "created_at": 1, "call_id": "c", "name": "n", "status": "completed"}
    said = {"type": "chatkit.assistant_message", "created_at": 1}
    file = {"id": "cfile_1", "type": "file", "name": "a.txt", "mime_type": "text/plain"}
    asked = {"type": "chatkit.user_message", "created_at": 1, "content": [], "attachments": [file]}
    items = [
        said | {"id": "half", "content": [{"type": "output_text", "text": "half \ud83d"}]},
        call | {"id": "deep", "output": json.dumps(deep)},
        asked | {"id": "one"},
        asked | {"id": "two"},
        asked | {"id": "two"},
    ]
    await importing.add(HostedThread({"id": "cthr_x", "created_at": 1, "user": "u"}, items))
    assert [entry.item_id for entry in importing.report.left_out] in ([], ["deep"])
    page = await store.load_thread_items("cthr_x", None, 100, "asc", RequestContext("u"))
    assert [item.id for item in page.data if item.id != "deep"] == ["half", "one", "two"]
    assert (importing.report.imported["attachment"], importing.report.placeholders) == (1, 1)


async def test_a_thread_whose_last_saved_item_was_deleted_there_is_fetched_again(
    tmp_path: Path, small: tuple[hosted_api.HostedApi, str, HostedImport]
) -> None:
    api, url, _ = small
    dump = Dump(tmp_path)
    dump.create()

    async def save() -> None:
        async with HostedApi(KEY, base_url=url, max_retries=2) as source:
            async for thread in source.threads(known=dump):
                dump.save(thread)

    await save()
    thread = api.threads[0]
    before = [str(vars(item)["id"]) for item in api.items[thread.id]]
    api.items[thread.id].pop()
    api.items[thread.id].append(hosted_item("chatkit.task", thread, 999, random.Random(1)))
    await save()
    assert [item["id"] for item in dump.items_of(thread.id)] == [*before, "cthi_999"]


async def test_an_address_without_threads_is_told(small: tuple[hosted_api.HostedApi, str, HostedImport]) -> None:
    _, url, importing = small
    with pytest.raises(HostedError, match="no threads of ChatKit"):
        await take(f"{url}/nope", importing)


def test_calls_of_client_tools_with_strange_arguments() -> None:
    call = {"type": "chatkit.client_tool_call", "created_at": 1, "call_id": "c", "name": "n", "status": "in_progress"}
    given = [{"id": "1", "arguments": "[1]"}, {"id": "2", "arguments": "{}", "output": "no json"}, {"id": "3"}]
    thread = HostedThread({"id": "cthr", "created_at": 1, "user": "u"}, [call | more for more in given])
    made = [record["item"] for record in converted(thread).records[1:]]
    items = [ClientToolCallItem.model_validate(item) for item in made]
    assert [item.arguments for item in items] == [{"value": [1]}, {}, {}]
    assert [(item.status, item.output) for item in items] == [
        ("pending", None),
        ("pending", "no json"),
        ("pending", None),
    ]


@pytest.mark.parametrize(
    ("status", "says"), [(401, "refuses this key"), (403, "may not read"), (500, "answers 500"), (400, "answers 400")]
)
async def test_what_the_api_says_is_told(
    small: tuple[hosted_api.HostedApi, str, HostedImport], status: int, says: str
) -> None:
    api, url, importing = small
    api.refuse_with = status
    with pytest.raises(HostedError, match=says):
        await take(url, importing)


async def test_an_api_that_repeats_its_page_is_left(
    small: tuple[hosted_api.HostedApi, str, HostedImport], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, url, importing = small
    page = api._page_of(api.threads, {"order": "asc"}) | {"has_more": True}
    monkeypatch.setattr(api, "_page_of", lambda *_: page)
    with pytest.raises(HostedError, match="same page"):
        await take(url, importing)


async def test_a_thread_that_was_deleted_meanwhile_is_passed_over(
    small: tuple[hosted_api.HostedApi, str, HostedImport],
) -> None:
    api, url, importing = small
    gone = ChatKitThread.model_validate(json.loads(api.threads[0].to_json()) | {"id": "cthr_gone"})
    api.threads.append(gone)
    await take(url, importing, user=gone.user)
    assert importing.report.imported["thread"] == 3
    assert importing.report.left_out == []


def test_a_damaged_dump_is_named_and_fetched_again(tmp_path: Path) -> None:
    dump = Dump(tmp_path)
    dump.create()
    thread = {"id": "../cthr/1", "created_at": 1, "user": "u"}
    items = [{"id": "a", "text": "\ud800"}, {"id": "b"}]
    dump.save(HostedThread(thread, items))
    (path,) = (tmp_path / "threads").iterdir()
    assert path.parent == tmp_path / "threads"
    assert list(dump.threads()) == [HostedThread(thread, items)]
    assert list(dump.items_of("../cthr/1")) == items
    dump.save(HostedThread(thread, [*items, {"id": "c", "status": "in_progress"}]))
    # The call may have ended since.
    assert dump.items_of("../cthr/1") == ()
    path.write_text(path.read_text()[:-9])
    assert dump.items_of("../cthr/1") == ()
    (found,) = dump.threads()
    assert isinstance(found, BadDumpError)
    assert "line 4" in str(found)
    path.write_bytes(b"\xff")
    assert dump.items_of("../cthr/1") == ()
    assert [type(found) for found in dump.threads()] == [BadDumpError]


def test_wrong_commands_are_named(tmp_path: Path, database_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    (tmp_path / "threads").mkdir()
    (tmp_path / "threads" / "cthr.jsonl").write_text('{"id": "cthr", "created_at": 1, "user": "u"}\n')
    for name, content in (
        ("three.csv", "a,b,c\n"),
        ("twice.csv", "a,b\na,c\n"),
        ("empty.json", "{}"),
        ("no.json", "{"),
    ):
        (tmp_path / name).write_text(content)
    (tmp_path / "twice.json").write_text('{"a": "b", "a": "c"}')
    for arguments, says in (
        ((), "give one of"),
        (("--api", "--dump", str(tmp_path)), "give one of"),
        (("--dump", str(tmp_path / "none")), "there are no threads"),
        *(
            (("--dump", str(tmp_path), "--user-map", str(tmp_path / name)), says)
            for name, says in (
                ("three.csv", "two columns"),
                ("twice.csv", "a is there twice"),
                ("twice.json", "a is there twice"),
                ("empty.json", "no user"),
                ("no.json", "no JSON"),
                ("none.csv", "No such file"),
            )
        ),
        (("--save", "/proc/none"), "/proc/none"),
    ):
        done = CliRunner().invoke(cli, ["import-hosted", *arguments])
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert says in done.stderr
