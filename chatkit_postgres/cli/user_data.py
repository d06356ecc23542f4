"""`user export` and `user import`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.users import Name
from chatkit_postgres.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from chatkit_postgres.attachments.storage import Storage
    from chatkit_postgres.db import Database
    from chatkit_postgres.user_data.importing import Report

Archive = Annotated[Path, typer.Argument(help="A file that `user export` has written, or JSON Lines of its format.")]


def export_user(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ZIP file to write.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write everything of this user, with the bytes of files, into a ZIP file."""
    if output.exists() and not force:
        _fail(f"{output} is there already; --force replaces it")
    settings = load_settings()
    with explained(), any_database(settings) as url:
        asyncio.run(_export(url, settings, name, output))
    typer.echo(f"{output}: everything of {name}.")


def import_user(
    file: Archive,
    name: Annotated[str, typer.Option("--as", help="The user id here; left out: the one that was exported.")] = "",
) -> None:
    """Import what `user export` has written. What is here already stays; an interrupted import can be repeated."""
    from chatkit_postgres.auth.user import is_user_id

    archive = _opened(file)
    owner = name or archive.user or _fail(f"{file} names no user; use --as NAME")
    if not is_user_id(owner):
        _fail("user: a name is 1 to 255 printable characters")
    settings = load_settings()
    with explained(), any_database(settings) as url:
        report = asyncio.run(_import(url, settings, owner, archive))
    for kind in sorted({*report.imported, *report.known}):
        typer.echo(f"{kind}\t{report.imported[kind]} imported\t{report.known[kind]} there already")
    for missing in report.missing_files:
        typer.echo(f"attachment\t{missing}: its bytes are not in {file}", err=True)


async def _export(url: Any, settings: Any, name: str, output: Path) -> None:
    from chatkit_postgres.user_data.export import Export

    async with opened_rooms(url, settings) as (database, storage):
        export = Export(database, storage, name)
        extent = await export.extent()
        if extent is None:
            typer.echo(f"user: there is no user {name}", err=True)
            raise typer.Exit(1)
        # A file of this name is always whole.
        part = output.with_name(f"{output.name}.part")
        with _bar() as bar, part.open("wb") as file:
            items = bar.add_task("items", total=extent.items)
            files = bar.add_task("bytes of files", total=extent.bytes)
            async for piece in export.pieces():
                file.write(piece.data)
                bar.advance(items, piece.items)
                bar.advance(files, piece.file_bytes)
        part.replace(output)


async def _import(url: Any, settings: Any, owner: str, archive: Any) -> "Report":
    from chatkit_postgres.user_data.archive import BadArchiveError
    from chatkit_postgres.user_data.importing import Import

    async with opened_rooms(url, settings) as (database, storage):
        importing = Import(database, storage, owner)
        with _bar() as bar:
            task = bar.add_task("bytes of records", total=archive.size)
            try:
                async for read in importing.run(archive):
                    bar.update(task, completed=read)
            except BadArchiveError as error:
                _fail(f"{error} What comes before it was imported.")
        return importing.report


@asynccontextmanager
async def opened_rooms(url: Any, settings: Any) -> "AsyncIterator[tuple[Database, Storage]]":
    from chatkit_postgres.db import Database

    database = Database(url)
    try:
        yield database, settings.file_storage(settings.data_dir)
    finally:
        await database.close()


def _bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On stderr, because programs read stdout.
    return Progress(*columns, console=Console(stderr=True))


def _opened(file: Path) -> Any:
    from chatkit_postgres.user_data.archive import ArchiveReader, BadArchiveError

    try:
        return ArchiveReader(file)
    except BadArchiveError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{file}: {error.strerror}")


def _fail(sentence: str) -> Any:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
