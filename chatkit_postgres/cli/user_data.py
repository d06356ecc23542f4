"""`user export` and `user import`."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.audit import audit_of, look
from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import bar, fail, printable
from chatkit_postgres.cli.users import Name
from chatkit_postgres.settings import Settings, load_settings

if TYPE_CHECKING:
    from chatkit_postgres.attachments.storage import Storage
    from chatkit_postgres.db import Database
    from chatkit_postgres.user_data.archive import ArchiveReader
    from chatkit_postgres.user_data.importing import Report

Archive = Annotated[
    Path, typer.Argument(help="A file that `user export` has written, or JSON Lines of its format. It must be trusted.")
]


def export_user(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ZIP file to write.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write everything of this user, with the bytes of files, into a ZIP file. Exits with 1 if bytes are missing."""
    if output.exists() and not force:
        fail(f"{output} is there already; --force replaces it")
    settings = load_settings()
    with explained(), any_database(settings) as url:
        missing = asyncio.run(_export(url, settings, name, output))
    typer.echo(f"{output}: everything of {printable(name)}.")
    for title in missing:
        typer.echo(
            f"{printable(title)}: its bytes are not in the storage ({settings.storage_url or settings.data_dir})",
            err=True,
        )
    if missing:
        raise typer.Exit(1)


def import_user(
    file: Archive,
    name: Annotated[str, typer.Option("--as", help="The user id here; left out: the one that was exported.")] = "",
) -> None:
    """Import what `user export` has written. What is here already stays; an interrupted import can be repeated. Exits
    with 1 if something could not be imported."""
    from chatkit_postgres.auth.user import is_user_id

    with _read(file) as archive:
        owner = name or archive.user
        if owner is None:
            fail(f"{file} names no user; use --as NAME")
        if not is_user_id(owner):
            fail("user: a name is 1 to 255 printable characters")
        typer.echo(f"{file}: for {owner}.", err=True)
        settings = load_settings()
        with explained(), any_database(settings) as url:
            report = asyncio.run(_import(url, settings, owner, archive))
    for kind in sorted({*report.imported, *report.known}):
        typer.echo(f"{kind}\t{report.imported[kind]} imported\t{report.known[kind]} there already")
    for kind in sorted(+report.left_out):
        reason = "without a thread of theirs, or in a place that the thread has given to another one"
        typer.echo(f"{kind}\t{report.left_out[kind]} left out: {reason}", err=True)
    for missing in report.missing_files:
        typer.echo(f"attachment\t{printable(missing)}: its bytes are not in {file}", err=True)
    if +report.left_out or report.missing_files:
        raise typer.Exit(1)


async def _export(url: Any, settings: Settings, name: str, output: Path) -> list[str]:
    from chatkit_postgres.user_data.export import Export

    async with opened_rooms(url, settings) as (database, storage):
        export = Export(database, storage, name, with_hidden=True)
        extent = await export.extent()
        if extent is None:
            fail(f"user: there is no user {printable(name)}")
        await audit_of(settings, database).record(look("user.export", name))
        with bar() as shown, _whole(output) as file:
            items = shown.add_task("items", total=extent.items)
            files = shown.add_task("bytes of files", total=extent.bytes)
            async for piece in export.pieces():
                file.write(piece.data)
                shown.advance(items, piece.items)
                shown.advance(files, piece.file_bytes)
        return export.missing


async def _import(url: Any, settings: Settings, owner: str, archive: "ArchiveReader") -> "Report":
    from chatkit_postgres.user_data.archive import BadArchiveError
    from chatkit_postgres.user_data.importing import Import

    async with opened_rooms(url, settings) as (database, storage):
        importing = Import(database, storage, owner)
        try:
            with bar() as shown:
                task = shown.add_task("bytes of records", total=archive.size)
                async for read in importing.run(archive):
                    shown.update(task, completed=read)
        except BadArchiveError as error:
            fail(f"{printable(str(error))} What comes before it was imported.")
        return importing.report


@asynccontextmanager
async def opened_rooms(url: Any, settings: Settings) -> "AsyncIterator[tuple[Database, Storage]]":
    from chatkit_postgres.db import Database
    from chatkit_postgres.errors import ChatError, DatabaseUnavailable

    database = Database(url)
    try:
        yield database, settings.file_storage(settings.data_dir)
    except DatabaseUnavailable:
        raise
    except ChatError as error:
        fail(f"{error.message} Nothing is lost; try again.")
    finally:
        await database.close()


@contextmanager
def _whole(output: Path) -> Iterator[IO[bytes]]:
    """A file that only its owner can read, and that has this name when it is whole."""
    try:
        handle, part = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(part).replace(output)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    finally:
        Path(part).unlink(missing_ok=True)


@contextmanager
def _read(file: Path) -> "Iterator[ArchiveReader]":
    from chatkit_postgres.user_data.archive import ArchiveReader, BadArchiveError

    try:
        archive = ArchiveReader(file)
        archive.user  # noqa: B018 - the first record is read
    except BadArchiveError as error:
        fail(printable(str(error)))
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    try:
        yield archive
    finally:
        archive.close()
