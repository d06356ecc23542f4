"""`import-hosted`: conversations of OpenAI's hosted ChatKit come here."""

import asyncio
import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres.cli.databases import any_database, explained
from chatkit_postgres.cli.printing import bar, fail, printable
from chatkit_postgres.cli.user_data import opened_rooms
from chatkit_postgres.settings import Settings, load_settings
from chatkit_postgres.text import header_fault

if TYPE_CHECKING:
    from chatkit_postgres.user_data.hosted.importing import HostedReport
    from chatkit_postgres.user_data.hosted.source import HostedApi

HOSTED_URL = "https://api.openai.com/v1"


def import_hosted(
    *,
    api: Annotated[bool, typer.Option("--api", help="Read from OpenAI's API, with the key in OPENAI_API_KEY.")] = False,
    dump: Annotated[Path | None, typer.Option(help="Read what --save has saved.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save a dump of OpenAI's API in this directory. Needs no database.")
    ] = None,
    user_map: Annotated[
        Path | None, typer.Option(help="JSON, or CSV of two columns: the hosted user, and the user id here.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only threads of this hosted user.")] = None,
    base_url: Annotated[str, typer.Option(help="Where OpenAI's API is.")] = HOSTED_URL,
) -> None:
    """Import threads of hosted ChatKit, or save them. What is here already stays; an interrupted run can be repeated.
    Exits with 1 if something could not come along."""
    from chatkit_postgres.user_data.hosted.dump import Dump

    if [api, dump is not None, save is not None].count(True) != 1:
        fail("import-hosted: give one of --api, --dump DIR and --save DIR, and only one")
    try:
        if save is not None:
            asyncio.run(_save(base_url, save, user))
            return
        if dump is not None and not Dump(dump).size:
            fail(f"{dump}: there are no threads; a dump has a directory `threads`")
        users = _read_map(user_map) if user_map is not None else None
        settings = load_settings()
        with explained(), any_database(settings) as url:
            report = asyncio.run(_import(url, settings, base_url=base_url, dump=dump, users=users, user=user))
    except KeyboardInterrupt:
        fail("import-hosted: interrupted; run the command again to go on")
    _print(report)


async def _save(base_url: str, directory: Path, user: str | None) -> None:
    from chatkit_postgres.user_data.hosted.dump import Dump
    from chatkit_postgres.user_data.hosted.source import HostedError

    saved, count, new = Dump(directory), 0, 0
    try:
        saved.create()
        with bar() as shown:
            threads, items = shown.add_task("threads", total=None), shown.add_task("items", total=None)
            async with _api(base_url) as hosted:
                async for thread in hosted.threads(user=user, known=saved):
                    new += len(thread.items) - len(saved.items_of(str(thread.thread.get("id"))))
                    saved.save(thread)
                    count += 1
                    shown.advance(threads)
                    shown.advance(items, len(thread.items))
    except HostedError as error:
        fail(f"{printable(str(error))} {count} threads were saved; run the command again to go on.")
    except OSError as error:
        fail(f"{directory}: {error.strerror}")
    typer.echo(f"{directory}: {count} threads, {new} items of which are new.")


async def _import(
    url: Any,
    settings: Settings,
    *,
    base_url: str,
    dump: Path | None,
    users: Mapping[str, str] | None,
    user: str | None,
) -> "HostedReport":
    from chatkit_postgres.user_data.hosted.dump import BadDumpError, Dump
    from chatkit_postgres.user_data.hosted.importing import HostedImport
    from chatkit_postgres.user_data.hosted.source import HostedError

    async with opened_rooms(url, settings) as (database, storage):
        importing = HostedImport(database, storage, users)
        try:
            with bar() as shown:
                if dump is None:
                    task = shown.add_task("threads", total=None)
                    async with _api(base_url) as hosted:
                        async for thread in hosted.threads(user=user):
                            await importing.add(thread)
                            shown.advance(task)
                else:
                    saved = Dump(dump)
                    task = shown.add_task("threads", total=saved.size)
                    for found in saved.threads():
                        if isinstance(found, BadDumpError):
                            importing.note_damaged(found)
                        elif user is None or found.thread.get("user") == user:
                            await importing.add(found)
                        shown.advance(task)
        except HostedError as error:
            _print(importing.report, is_whole=False)
            fail(f"{printable(str(error))} What comes before it was imported; run the command again to go on.")
        return importing.report


def _api(base_url: str) -> "HostedApi":
    from chatkit_postgres.user_data.hosted.source import HostedApi

    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        fail("OPENAI_API_KEY: needed to read from OpenAI, and not set")
    if (fault := header_fault(key)) is not None:
        fail(f"OPENAI_API_KEY: this cannot be a key: {fault}")
    return HostedApi(key, base_url=base_url)


def _read_map(file: Path) -> Mapping[str, str]:
    """Each hosted user once: two people must not get one conversation."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: this is no text in UTF-8")
    pairs = _json_pairs(file, text) if text.lstrip().startswith("{") else _csv_pairs(file, text)
    users: dict[str, str] = {}
    for hosted, here in pairs:
        if users.setdefault(hosted, here) != here:
            fail(f"{file}: {printable(hosted)} is there twice")
    if not users:
        fail(f"{file}: there is no user in it")
    return users


def _csv_pairs(file: Path, text: str) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != 2 for row in rows):
        fail(f"{file}: each line has two columns, the hosted user and the user id here")
    return [(hosted.strip(), here.strip()) for hosted, here in rows]


def _json_pairs(file: Path, text: str) -> list[tuple[str, str]]:
    try:
        pairs: Any = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        fail(f"{file}: this is no JSON: {error}")
    if not all(isinstance(here, str) for _, here in pairs):
        fail(f"{file}: a user id is a string")
    return list(pairs)


def _print(report: "HostedReport", *, is_whole: bool = True) -> None:
    for kind in sorted({"thread", "item", *report.imported, *report.known} - {"user"}):
        typer.echo(f"{kind}\t{report.imported[kind]} imported\t{report.known[kind]} there already")
    if report.placeholders:
        typer.echo(f"{report.placeholders} attachments have their names here; OpenAI does not give their bytes")
    for user, count in sorted(report.unmapped.items()):
        typer.echo(f"left out: {count} threads of {printable(user)}, whom the user map does not name", err=True)
    for left_out in report.left_out:
        typer.echo(f"left out: {printable(str(left_out))}", err=True)
    if (report.left_out or report.unmapped) and is_whole:
        raise typer.Exit(1)
