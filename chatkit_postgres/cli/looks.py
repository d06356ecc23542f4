"""`user show` and `thread show`: what support needs to know. Each look is written into the audit log first."""

import asyncio
import json
import pydoc
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.audit import look, opened_audit
from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import fail, json_for_stdout, minute, printable, printable_lines
from chatkit_postgres.cli.users import Name
from chatkit_postgres.settings import Settings, load_settings

if TYPE_CHECKING:
    from chatkit_postgres.user_data.looks import Record

threads = typer.Typer(help="Show a thread.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with everything that is stored.")]


def show_user(name: Name, *, as_json: AsJson = False) -> None:
    """Show a user: state, numbers, tokens, newest threads. The look is written into the audit log."""
    settings = load_settings()
    with explained(), any_database(settings) as url:
        user = asyncio.run(_user(url, settings, name))
    if user is None:
        fail(f"user: there is no user {printable(name)}")
    typer.echo(json_for_stdout(user, indent=2) if as_json else "\n".join(_lines_of_user(user)))


def show_thread(
    thread_id: Annotated[str, typer.Argument(help="The id of the thread.")],
    user: Annotated[str | None, typer.Option(help="The user id of its owner; needed if several have the id.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with everything that is stored.")] = False,
) -> None:
    """Show a thread in a pager: items, also hidden ones, calls of tools, and turns that did not end well. The look is
    written into the audit log."""
    settings = load_settings()
    is_paged = not as_json and sys.stdout.isatty()
    pieces: list[str] = []

    def write(record: "Record") -> None:
        text = json_for_stdout(record) + "\n" if as_json else _readable(record)
        if is_paged:
            pieces.append(text)
        else:
            typer.echo(text, nl=False)

    with explained(), any_database(settings) as url:
        owner = user if user is not None else asyncio.run(_owner(url, thread_id))
        is_found = asyncio.run(_thread(url, settings, owner, thread_id, write))
    if not is_found:
        fail(f"thread: {printable(owner)} has no thread {printable(thread_id)}")
    if is_paged:
        pydoc.pager("".join(pieces))


async def _user(url: Any, settings: Settings, name: str) -> "Record | None":
    from chatkit_postgres.user_data.looks import user_record

    async with opened_audit(url, settings) as (database, audit):
        await audit.record(look("user.show", name))
        return await user_record(database, name)


async def _owner(url: Any, thread_id: str) -> str:
    from chatkit_postgres.db import Database
    from chatkit_postgres.store.ids import session_uuid
    from chatkit_postgres.store.sql.reports import FIND_OWNERS

    database = Database(url, pooled=False)
    found = await database.run_for_all_owners(FIND_OWNERS, session=session_uuid(thread_id))
    if not found:
        fail(f"thread: nobody has a thread {printable(thread_id)}")
    if len(found) > 1:
        names = ", ".join(printable(row["user_id"]) for row in found)
        fail(f"thread: several users have this thread; give --user, one of {names}")
    return str(found[0]["user_id"])


async def _thread(url: Any, settings: Settings, owner: str, thread_id: str, write: "Callable[[Record], None]") -> bool:
    from chatkit_postgres.user_data.looks import thread_records

    is_found = False
    async with opened_audit(url, settings) as (database, audit):
        await audit.record(look("thread.show", owner, thread_id))
        async for record in thread_records(database, owner, thread_id):
            is_found = True
            write(record)
    return is_found


def _lines_of_user(user: "Record") -> Iterator[str]:
    disabled = f", disabled since {minute(user['disabled_at'])}" if user["disabled_at"] is not None else ""
    yield f"{printable(user['user'])}, since {minute(user['created_at'])}{disabled}"
    if user["claims"]:
        yield f"  claims    {printable(json.dumps(user['claims'], ensure_ascii=False))}"
    yield f"  threads   {user['threads']}, with {user['items']} items, the newest of {minute(user['newest_item_at'])}"
    yield f"  files     {user['files']}, {user['bytes_of_files']} bytes"
    yield f"  turns     {user['turns']}; {user['running_turns']} run, {user['questions']} wait for an answer"
    yield f"  tokens    {user['input_tokens']} in, {user['output_tokens']} out"
    yield f"  feedback  {user['liked']} positive, {user['disliked']} negative"
    yield f"the newest of {user['threads']} threads:"
    for thread in user["newest_threads"]:
        title = printable(thread["title"] or "(without a title)")
        yield f"  {minute(thread['updated_at'])}  {printable(thread['id'])}  {title}"


def _readable(record: "Record") -> str:
    if record["type"] == "thread":
        title, status = printable(record["title"] or "(without a title)"), record["status"]["type"]
        of = f"of {printable(record['user'])}, begun {minute(record['created_at'])}, {status}"
        return f"{printable(record['id'])}  {title}\n{of}\n"
    head, text = _head_and_text(record)
    time = minute(record.get("created_at") or record.get("started_at"))
    lines = "".join(f"    {line}\n" for line in printable_lines(text).split("\n") if text)
    return f"\n{time}  {printable(head)}\n{lines}"


def _head_and_text(record: "Record") -> tuple[str, str]:
    match record["type"]:
        case "tool_call":
            return f"tool {record['name']}", f"{record['arguments']}\n-> {record['output']}"
        case "turn":
            reason = f": {record['error_code']}" if record["error_code"] else ""
            return f"[{record['operation']} {record['state']}{reason}]", f"turn_id={record['turn_id']} in the log"
        case _:
            agent = f" ({record['agent']})" if record["agent"] else ""
            unfinished = ", unfinished" if record["is_unfinished"] else ""
            return f"{record['kind'].replace('_', ' ')}{agent}{unfinished}", _text_of(record)


def _text_of(record: "Record") -> str:
    item = record["item"]
    if record["kind"] == "client_tool_call":
        arguments, output = (json.dumps(item.get(name), ensure_ascii=False) for name in ("arguments", "output"))
        return f"{item.get('name')} {arguments}\n-> {output}"
    quoted = [f"> {line}" for line in (item.get("quoted_text") or "").splitlines()]
    files = [f"[file {file.get('name')}]" for file in item.get("attachments") or ()]
    text = record["text"] or _hidden_text(item) or ("" if quoted or files else "(without words)")
    return "\n".join([*quoted, *filter(None, [text]), *files])


def _hidden_text(item: dict[str, Any]) -> str:
    """Of context that only the model sees, whose text is no text of the conversation."""
    content = item.get("content")
    return content if isinstance(content, str) else ""
