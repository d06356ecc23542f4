"""`user erase` and `erase-again`."""

import asyncio
import json
from typing import Annotated, Any

import typer

from chatkit_postgres.cli.audit import operator
from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import fail, printable
from chatkit_postgres.cli.user_data import opened_rooms
from chatkit_postgres.cli.users import Name
from chatkit_postgres.settings import Deployment, Settings, load_settings

SECONDS = "It takes at least ten seconds: until every process refuses the user."


def erase_user(name: Name, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Erase this user: rows, files, running turns. Prints a receipt as JSON."""
    settings = load_settings()
    key = _key(settings)
    if not yes:
        typer.confirm(f"Erase everything of {name}, for good? {SECONDS}", abort=True, err=True)
    with explained(), any_database(settings) as url:
        receipt = asyncio.run(_erase(url, settings, key, name))
    if receipt is None:
        fail(f"user: there is no user {printable(name)}")
    typer.echo(json.dumps(receipt, indent=2))


def erase_again() -> None:
    """After a backup was restored: erase again who was erased since it was made. Prints a receipt for each."""
    settings = load_settings()
    key = _key(settings)
    with explained(), any_database(settings) as url:
        receipts = asyncio.run(_erase_again(url, settings, key))
    for receipt in receipts:
        typer.echo(json.dumps(receipt, indent=2))
    typer.echo(f"{len(receipts)} users were erased again.", err=True)


def _key(settings: Settings) -> str:
    return settings.key_of_hashes(settings.data_dir, is_dev=Deployment(settings, "127.0.0.1").is_dev)


async def _erase(url: Any, settings: Settings, key: str, name: str) -> dict[str, Any] | None:
    from chatkit_postgres.user_data.erasure import Erasure, StillWritingError

    async with opened_rooms(url, settings) as (database, storage):
        erasure = Erasure(database, storage, key, actor=operator())
        if not await erasure.is_known(name):
            return None
        try:
            return (await erasure.erase(name)).document(settings.backup_days)
        except StillWritingError:
            fail("The user's rows come back: something that knows no disabled users is writing them. Erase once more.")


async def _erase_again(url: Any, settings: Settings, key: str) -> list[dict[str, Any]]:
    from chatkit_postgres.user_data.erasure import Erasure

    async with opened_rooms(url, settings) as (database, storage):
        erasure = Erasure(database, storage, key, actor=operator())
        return [receipt.document(settings.backup_days) async for receipt in erasure.erase_again()]
