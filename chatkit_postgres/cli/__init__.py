"""chatkit-postgres: serve, migrate, check, token, user, version."""

import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from chatkit_postgres import __version__
from chatkit_postgres.cli.databases import own_database
from chatkit_postgres.cli.users import users
from chatkit_postgres.settings import ConfigurationError, Settings, is_loopback, load_settings

# The SDKs take seconds to import. A command imports what it needs when it is known to run.

CONFIGURATION_PROBLEM = 2
# Longer than it takes to save and close the running turns; uvicorn waits for open streams for ever otherwise.
GRACEFUL_SECONDS = 10
HTTP_PROTOCOL = "chatkit_postgres.api.http_protocol:BoundedHttpProtocol"

cli = typer.Typer(
    help="The durable, multi-user backend for OpenAI's ChatKit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(users, name="user")


def main() -> None:
    """Runs a command and ends the process."""
    # A quarter of a start was spent looking for garbage among what the SDKs' modules define, where there is none. The
    # server sets its own pace when it has been built.
    gc.set_threshold(100_000, 50, 100)
    # An assistant lives in the directory one starts from, as with uvicorn and gunicorn.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path takes strings
    try:
        cli()
    except SystemExit as ended:
        _leave(ended.code)
    except ConfigurationError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        _leave(CONFIGURATION_PROBLEM)
    _leave(0)


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
) -> None:
    """Start the server. Without DATABASE_URL it brings its own PostgreSQL and migrates it."""
    settings = load_settings(serve_host=host)
    problems = settings.problems() + _port_problems(host, port)
    if problems:
        raise ConfigurationError(problems)
    from chatkit_postgres.observability.logs import configure_logging

    configure_logging(level=settings.log_level, log_format=settings.log_format)
    with _terminated_as_interrupted(), own_database(settings) as url:
        import uvicorn

        from chatkit_postgres.cli.databases import check_fitness
        from chatkit_postgres.db.migrations import upgrade
        from chatkit_postgres.main import create_app

        if settings.is_embedded:
            upgrade(url)
            os.environ["CHAT_EMBEDDED_URL"] = url.render_as_string(hide_password=False)
        else:
            check_fitness(url)
        os.environ["CHAT_SERVE_HOST"] = host
        # Made here even if workers make their own, so that a problem is one message.
        app = create_app()
        in_this_process = workers == 1 and not reload
        typer.echo(_greeting(settings, host, port), err=True)
        with suppress(KeyboardInterrupt):
            uvicorn.run(
                app if in_this_process else "chatkit_postgres.main:create_app",
                factory=not in_this_process,
                host=host,
                port=port,
                reload=reload,
                workers=workers,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                http=HTTP_PROTOCOL,
                h11_max_incomplete_event_size=settings.max_header_bytes,
                ws="none",
            )


@cli.command()
def migrate() -> None:
    """Bring the database to the revision this version wants. One that is newer stays as it is."""
    from chatkit_postgres.cli.databases import explained
    from chatkit_postgres.db.fitness import misfits_at
    from chatkit_postgres.db.migrations import is_newer_at, upgrade, wanted_revision

    settings = load_settings()
    with explained(), own_database(settings) as url:
        if misfits := misfits_at(url, migrates=True):
            raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])
        if (newer := is_newer_at(url)) is not None:
            typer.echo(f"The database is at revision {newer}, which is newer than {wanted_revision()}: nothing to do.")
            return
        upgrade(url)
    typer.echo(f"The database is at revision {wanted_revision()}.")


@cli.command()
def check(
    host: Annotated[str, typer.Option(help="The address `serve` would listen on.")] = "127.0.0.1",
) -> None:
    """Look at the configuration, the assistant, the database and the model; exit with 1 if any of them fails."""
    try:
        settings = load_settings(serve_host=host)
        problems = settings.problems()
    except ConfigurationError as error:
        problems = error.problems
    if problems:
        for problem in problems:
            typer.echo(f"configuration  failed  {problem}")
        raise typer.Exit(1)
    typer.echo(f"configuration  ok      {'development' if settings.is_dev else 'jwt'} mode")
    from chatkit_postgres.cli.checks import results_of

    results = results_of(settings)
    for name, works, detail in results:
        typer.echo(f"{name:<13}  {'ok    ' if works else 'failed'}  {detail}")
    if not all(works for _, works, _ in results):
        raise typer.Exit(1)


@cli.command()
def token(
    user: Annotated[str, typer.Option(help="The user the token speaks for.")],
    minutes: Annotated[int, typer.Option(min=1, help="How long it is good for.")] = 60,
) -> None:
    """Print a bearer token, signed with the development secret or with CHAT_JWT_SECRET."""
    from chatkit_postgres.auth.tokens import mint
    from chatkit_postgres.parts.identity import shared_secret, token_rules

    settings = load_settings(serve_host="127.0.0.1")
    if problems := settings.problems():
        raise ConfigurationError(problems)
    try:
        typer.echo(mint(shared_secret(settings), user, seconds=minutes * 60, rules=token_rules(settings)))
    except ValueError as error:
        typer.echo(f"token: {error}", err=True)
        raise typer.Exit(1) from None


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _leave(code: str | int | None) -> NoReturn:
    """Without the interpreter's tear-down: a thread of obstore that wants to tell Python something meanwhile aborts the
    process (PyO3 before Python 3.13; two in a hundred runs of `check` ended with SIGABRT). The processes of --workers
    and --reload are uvicorn's, and end as it ends them."""
    if isinstance(code, str):
        typer.echo(code, err=True)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # None if it was closed from the beginning; and nobody may be reading any more.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _port_problems(host: str, port: int) -> list[str]:
    """Found before anything is started; otherwise the address that is printed is somebody else's.

    What else may be wrong with an address uvicorn says itself.
    """
    with suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                # As uvicorn does: connections of a server that has just ended are no server.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if _is_taken(probe, address):
                    return [
                        f'--port: {port} is taken by another server. Choose one: make run ARGS="--port {port + 10}"'
                    ]
    return []


def _is_taken(probe: socket.socket, address: Any) -> bool:
    try:
        probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _greeting(settings: Settings, host: str, port: int) -> str:
    shown = "localhost" if is_loopback(host) else host
    database = f"embedded PostgreSQL in {settings.data_dir}" if settings.is_embedded else "DATABASE_URL"
    model = "the built-in demo model" if settings.uses_demo_model else settings.model or "the default model"
    what = f"http://{shown}:{port}" if settings.is_dev else f"http://{shown}:{port}/api/chatkit"
    page = "" if settings.is_dev else "\n  no playground: there is a key, so this is not development mode"
    return f"\n  chatkit-postgres {__version__}  {what}\n  {database}, {model}{page}\n"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process the way Ctrl-C does, so that the embedded server is stopped too.

    uvicorn handles them while it runs and raises them again when it is done.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {sign: signal.signal(sign, interrupt) for sign in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
