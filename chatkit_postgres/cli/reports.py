"""`usage` and `feedback`: reports about all users."""

import asyncio
import csv
import re
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from chatkit_postgres.cli.audit import audit_of, look
from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import minute, printable, printable_lines
from chatkit_postgres.settings import Settings, load_settings

if TYPE_CHECKING:
    from chatkit_postgres.db import Database, Row

PAGE = 500
COUNTED = ("turns", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
_FORMULA = re.compile(r"(^|[;,\t\n])( *)([=+\-@\uff1d\uff0b\uff0d\uff20])")
"""What a spreadsheet would compute (OWASP, CSV injection), also one that takes semicolons for the ends of cells."""

Days = Annotated[int, typer.Option(min=1, max=3660, help="Of the last days, in UTC; 1 is today.")]


def usage(
    days: Days = 30,
    user: Annotated[str | None, typer.Option(help="A line for each day of this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number of users.")] = 100,
) -> None:
    """Print a line for each user, those with the most tokens first: turns and tokens."""
    with explained(), any_database(load_settings()) as url:
        rows = asyncio.run(_usage(url, days, user, limit))
    # On stderr, because programs read stdout.
    typer.echo("\t".join(("user" if user is None else "day", *COUNTED)), err=True)
    for name, row in rows:
        typer.echo("\t".join((printable(name), *(str(row[count]) for count in COUNTED))))


def feedback(
    days: Days = 30,
    kind: Annotated[Literal["positive", "negative"] | None, typer.Option(help="Only this kind.")] = None,
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
) -> None:
    """Print the feedback of all users with question and answer, the newest first. The look is written into the audit
    log."""
    settings = load_settings()
    with explained(), any_database(settings) as url:
        asyncio.run(_feedback(url, settings, days, kind, as_csv=as_csv))


async def _usage(url: Any, days: int, user: str | None, limit: int) -> "list[tuple[str, Any]]":
    from chatkit_postgres.context import RequestContext
    from chatkit_postgres.db import Database
    from chatkit_postgres.store import DatabaseStore
    from chatkit_postgres.store.sql.reports import USAGE_OF_USERS

    database = Database(url, pooled=False)
    if user is None:
        rows = await database.run_for_all_owners(USAGE_OF_USERS, days=days, page=limit)
        return [(row["user_id"], row) for row in rows]
    found = await DatabaseStore(database).turns.usage_by_day(RequestContext(user), days=days)
    return [(str(row["date"]), row) for row in found]


async def _feedback(url: Any, settings: Settings, days: int, kind: str | None, *, as_csv: bool) -> None:
    from chatkit_postgres.db import Database

    database = Database(url, pooled=False)
    await audit_of(settings, database).record(look("feedback"))
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if as_csv:
        writer.writerow(("created_at", "kind", "user", "thread", "item", "agent", "question", "answer"))
    async for row in _rows(database, days, kind):
        names = (row["user_id"], row["thread_id"], row["item_id"], row["sender_name"] or "")
        texts = (row["question"] or "", row["answer"])
        if as_csv:
            writer.writerow((row["created_at"].isoformat(), row["kind"], *map(_cell, (*names, *texts))))
        else:
            time = minute(row["created_at"])
            typer.echo(f"{time}  {row['kind']}  {printable(row['user_id'])}  {printable(row['thread_id'])}")
            typer.echo(f"    asked     {printable(' '.join(texts[0].split()))}")
            typer.echo(f"    answered  {printable(' '.join(texts[1].split()))}")


async def _rows(database: "Database", days: int, kind: str | None) -> "AsyncIterator[Row]":
    from chatkit_postgres.store.sql.reports import LIST_FEEDBACK

    last: Row | None = None
    while page := await database.run_for_all_owners(
        LIST_FEEDBACK,
        days=days,
        kind=kind,
        after_time=last["created_at"] if last is not None else None,
        after_user=last["user_id"] if last is not None else None,
        after_message=last["message_id"] if last is not None else None,
        page=PAGE,
    ):
        for row in page:
            yield row
        last = page[-1]


def _cell(text: str) -> str:
    return _FORMULA.sub(r"\1\2'\3", printable_lines(text))
