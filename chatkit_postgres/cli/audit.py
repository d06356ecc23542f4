"""`audit list` and `audit verify`, and how commands write into the audit log."""

import asyncio
import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import fail, printable
from chatkit_postgres.settings import Deployment, Settings, load_settings

if TYPE_CHECKING:
    from chatkit_postgres.db import Database
    from chatkit_postgres.user_data.audit import Action, Audit, Head, Look

audit = typer.Typer(help="Who looked at whose conversations.", no_args_is_help=True)


@audit.command(name="list")
def list_entries(
    user: Annotated[str | None, typer.Option(help="Only looks at this user, who may be erased.")] = None,
) -> None:
    """Print a line for each look, the oldest first: number, time, who, what, whose, thread."""
    settings = load_settings()
    # On stderr, because programs read stdout.
    typer.echo("number\ttime\tby\tas\taction\tuser\tthread", err=True)
    with explained(), any_database(settings) as url:
        asyncio.run(_list(url, settings, user))


@audit.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(help="A head that this command has printed before: shows whether entries were cut off."),
    ] = None,
) -> None:
    """Check that no entry was changed or left out, and print the head. Exits with 1 if one was."""
    from chatkit_postgres.user_data.audit import BrokenChainError

    expected = _head(head) if head is not None else None
    settings = load_settings()
    try:
        with explained(), any_database(settings) as url:
            found = asyncio.run(_verify(url, settings, expected))
    except BrokenChainError as error:
        fail(f"audit: {error}")
    typer.echo(found)
    typer.echo(f"{found.sequence} entries are as they were written. Note this head elsewhere.", err=True)


def look(action: "Action", subject: str | None = None, thread_id: str | None = None) -> "Look":
    """By whoever runs this command."""
    from chatkit_postgres.user_data.audit import Look

    return Look(operator(), "command", action, subject, thread_id)


@asynccontextmanager
async def opened_audit(url: Any, settings: Settings) -> "AsyncIterator[tuple[Database, Audit]]":
    from chatkit_postgres.db import Database

    database = Database(url)
    try:
        yield database, audit_of(settings, database)
    finally:
        await database.close()


def audit_of(settings: Settings, database: "Database") -> "Audit":
    """Raises ConfigurationError without a key."""
    from chatkit_postgres.user_data.audit import Audit

    is_dev = Deployment(settings, "127.0.0.1").is_dev
    return Audit(database, settings.key_of_hashes(settings.data_dir, is_dev=is_dev))


async def _list(url: Any, settings: Settings, user: str | None) -> None:
    async with opened_audit(url, settings) as (_, log):
        async for row in log.entries(user):
            # Of an erased user there is only the hash.
            names = (row["actor"] or row["actor_hash"], row["subject"] or row["subject_hash"] or "-")
            who, whose = (printable(name) for name in names)
            thread = printable(row["thread_id"] or row["thread_hash"] or "-")
            time = f"{row['at']:%Y-%m-%d %H:%M:%S}Z"
            via, action = printable(row["via"]), printable(row["action"])
            typer.echo(f"{row['sequence']}\t{time}\t{who}\t{via}\t{action}\t{whose}\t{thread}")


async def _verify(url: Any, settings: Settings, expected: "Head | None") -> "Head":
    async with opened_audit(url, settings) as (_, log):
        return await log.verify(expected)


def _head(text: str) -> "Head":
    from chatkit_postgres.user_data.audit import Head

    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) < 19 and digest):
        fail("audit: a head is NUMBER:HASH, as `audit verify` prints it")
    return Head(int(number), digest)


def operator() -> str:
    """Who is at the machine; with sudo, who called it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        # A container may run as a number without a name.
        return f"uid {os.getuid()}"
