"""The command line: each command has a module, or its place here."""

import gc
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from dotenv import load_dotenv

from chatkit_postgres import __version__
from chatkit_postgres.cli.audit import audit
from chatkit_postgres.cli.databases import own_database
from chatkit_postgres.cli.distribution import distribute
from chatkit_postgres.cli.erasure import erase_again, erase_user
from chatkit_postgres.cli.hosted import import_hosted
from chatkit_postgres.cli.init import init
from chatkit_postgres.cli.looks import show_thread, show_user, threads
from chatkit_postgres.cli.reports import feedback, usage
from chatkit_postgres.cli.serve import serve
from chatkit_postgres.cli.user_data import export_user, import_user
from chatkit_postgres.cli.users import users
from chatkit_postgres.settings import ConfigurationError, Deployment, fingerprint, load_settings, unknown_settings

if TYPE_CHECKING:
    from sqlalchemy import URL

# The SDKs take seconds to import, so each command imports its modules when it runs.

CONFIGURATION_PROBLEM = 2
SERVER_MODULES = frozenset({"fastapi", "uvicorn", "jose", "limits", "multidict", "prometheus_client", "nh3", "aiohttp"})
"""Modules that the extra `server` installs."""

cli = typer.Typer(
    help="The durable, multi-user backend for OpenAI's ChatKit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
users.command(name="erase")(erase_user)
users.command(name="export")(export_user)
users.command(name="import")(import_user)
users.command(name="show")(show_user)
threads.command(name="show")(show_thread)
cli.add_typer(users, name="user")
cli.add_typer(threads, name="thread")
cli.add_typer(audit, name="audit")
cli.command()(feedback)
cli.command()(usage)
cli.command()(init)
cli.command()(serve)
cli.command()(distribute)
cli.command(name="import-hosted")(import_hosted)
cli.command(name="erase-again")(erase_again)


def main() -> None:
    """Runs a command and ends the process."""
    # Garbage collection took a quarter of the start-up time, and the objects that the SDKs' modules define are not
    # garbage. The server sets its own thresholds once it is built.
    gc.set_threshold(100_000, 50, 100)
    # Import strings are resolved in the current directory, as with uvicorn and gunicorn.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path takes strings
    # Commands print their own error messages instead of log lines; `serve` adds a handler.
    logging.getLogger("chatkit_postgres").addHandler(logging.NullHandler())
    # The assistant's code reads these variables too, as with compose's env_file; the environment wins.
    _load_dotenv()
    try:
        cli()
    except SystemExit as ended:
        _leave(ended.code)
    except ConfigurationError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        _leave(CONFIGURATION_PROBLEM)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in SERVER_MODULES:
            raise
        typer.echo(
            f"{error.name} is not installed: this command needs the extra `server` of chatkit-postgres. Install it "
            "from where the package came from, its wheel or its repository.",
            err=True,
        )
        _leave(CONFIGURATION_PROBLEM)
    _leave(0)


def _load_dotenv() -> None:
    path = Path(".env")
    try:
        if path.is_file():
            load_dotenv(path)
    except (OSError, ValueError) as error:
        typer.echo(f".env: cannot be read: {type(error).__name__}.", err=True)
        _leave(CONFIGURATION_PROBLEM)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]


@cli.callback()
def options(*, version: Version = False) -> None:
    pass


@cli.command()
def migrate() -> None:
    """Upgrade the database to the revision of this version. A newer database is left unchanged."""
    from chatkit_postgres.cli.databases import explained
    from chatkit_postgres.db.fitness import misfits_at
    from chatkit_postgres.db.migrations import head_revision, is_newer_at, upgrade

    settings = load_settings()
    with explained(), own_database(settings) as url:
        if misfits := misfits_at(url, migrates=True):
            raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])
        if (newer := is_newer_at(url)) is not None:
            typer.echo(f"The database is at revision {newer}, which is newer than {head_revision()}: nothing to do.")
            return
        upgrade(url)
        _distribute_new_tables(url)
    typer.echo(f"The database is at revision {head_revision()}.")


def _distribute_new_tables(url: "URL") -> None:
    """What a migration has made in a cluster is on its coordinator alone."""
    from chatkit_postgres.db.distribution import CannotDistribute, cluster_at
    from chatkit_postgres.db.distribution import distribute as distribute_tables

    cluster = cluster_at(url)
    if cluster is None or not cluster.is_distributed:
        return
    try:
        for step in distribute_tables(url):
            typer.echo(f"{step.table}: {step.kind}")
    except CannotDistribute as refused:
        raise ConfigurationError(
            [f"The migration is done, but the tables that it made are not distributed: {refused}"]
        ) from refused


@cli.command()
def check(
    host: Annotated[str, typer.Option(help="The address `serve` would listen on.")] = "127.0.0.1",
    mounted: Annotated[bool, typer.Option("--mounted", help="An application authenticates its users itself.")] = False,
) -> None:
    """Check the configuration, assistant, keys, database, storage and model. Exits with 1 if any of them fails."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        for problem in error.problems:
            typer.echo(f"configuration  failed  {problem}")
        raise typer.Exit(1) from None
    deployment = Deployment(settings, host, is_hosted=mounted)
    problems = deployment.problems() + unknown_settings()
    for problem in problems:
        typer.echo(f"configuration  failed  {problem}")
    if not problems:
        mode = "mounted" if mounted else "development" if deployment.is_dev else "jwt"
        typer.echo(f"configuration  ok      {mode} mode, settings {fingerprint(settings)}")
    from chatkit_postgres.cli.checks import results_of

    results = results_of(deployment)
    for name, works, detail in results:
        typer.echo(f"{name:<13}  {'ok    ' if works else 'failed'}  {detail}")
    if problems or not all(works for _, works, _ in results):
        raise typer.Exit(1)


@cli.command()
def token(
    user: Annotated[str, typer.Option(help="The user id in the token.")],
    minutes: Annotated[int, typer.Option(min=1, help="The lifetime of the token.")] = 60,
    claim: Annotated[list[str] | None, typer.Option(help="A further claim, NAME=VALUE; may be repeated.")] = None,
) -> None:
    """Print a bearer token, signed with the development secret or with CHAT_JWT_SECRET."""
    from chatkit_postgres.auth.tokens import mint

    settings = load_settings()
    deployment = Deployment(settings, "127.0.0.1")
    if problems := deployment.problems():
        raise ConfigurationError(problems)
    secret = settings.shared_secret(settings.data_dir, is_dev=deployment.is_dev)
    rules = settings.token_rules(is_dev=deployment.is_dev)
    more = dict(text.partition("=")[::2] for text in claim or ())
    try:
        typer.echo(mint(secret, user, seconds=minutes * 60, rules=rules, more=more))
    except ValueError as error:
        typer.echo(f"token: {error}", err=True)
        raise typer.Exit(1) from None


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _leave(code: str | int | None) -> NoReturn:
    """End the process without the interpreter's shutdown, in which a thread of obstore may abort it (PyO3 before Python
    3.13: SIGABRT in 2 % of runs of `check`). Processes of --workers and --reload are ended by uvicorn."""
    if isinstance(code, str):
        typer.echo(code, err=True)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A stream is None if it was closed at the start, and raises if its reader is gone.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
