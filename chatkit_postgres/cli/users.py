"""`user list`, `user disable` and `user enable`: for operators, directly on the database."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.settings import load_settings

if TYPE_CHECKING:
    from chatkit_postgres.db import Row, Statement

users = typer.Typer(help="List, show, disable, enable, export, import and erase users.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user id, as in the user's tokens.")]


@users.command(name="list")
def list_users(
    after: Annotated[str, typer.Option(help="Only names that sort after this one.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of users.")] = 100,
    disabled: Annotated[bool, typer.Option("--disabled", help="Only disabled users.")] = False,
) -> None:
    """Print a line for each user: name, creation time, number of threads, state, and stored claims."""
    from chatkit_postgres.db.users import LIST_USERS

    rows = _run(LIST_USERS, after_user=after, page=limit, only_disabled=disabled)
    # On stderr, because programs read stdout.
    typer.echo("user\tsince\tthreads\tstate\tclaims", err=True)
    for row in rows:
        state = f"disabled {row['disabled_at']:%Y-%m-%d %H:%M}Z" if row["disabled_at"] else "enabled"
        typer.echo(
            f"{row['user_id']}\t{row['created_at']:%Y-%m-%d %H:%M}Z\t{row['threads']}\t{state}\t{row['metadata']}"
        )


@users.command()
def disable(name: Name) -> None:
    """Refuse this user on every replica within 10 seconds, even with a valid token. Nothing is deleted."""
    from chatkit_postgres.auth.user import is_user_id
    from chatkit_postgres.db.users import DISABLE_USER

    if not is_user_id(name):
        typer.echo("user: a name is 1 to 255 printable characters", err=True)
        raise typer.Exit(1)
    (row,) = _run(DISABLE_USER, owner=name)
    typer.echo(f"{name} is disabled.{' There was no such user yet.' if row['is_new'] else ''}")


@users.command()
def enable(name: Name) -> None:
    """Let this user sign in again."""
    from chatkit_postgres.db.users import ENABLE_USER

    if not _run(ENABLE_USER, owner=name):
        typer.echo(f"user: there is no user {name}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{name} is enabled.")


def _run(statement: "Statement", **parameters: Any) -> "Sequence[Row]":
    from chatkit_postgres.db import Database

    async def ask(url: Any) -> "Sequence[Row]":
        return await Database(url, pooled=False).run_for_all_owners(statement, **parameters)

    with explained(), any_database(load_settings()) as url:
        return asyncio.run(ask(url))
