"""`serve`: runs the server in one or several processes, with an embedded database if none is configured."""

import errno
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatkit_postgres import __version__
from chatkit_postgres.cli.databases import check_fitness, reserved_database
from chatkit_postgres.settings import ConfigurationError, Deployment, is_loopback, load_settings, unknown_settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Config

# Longer than it takes to save and close the running turns. Without it, uvicorn waits for open streams indefinitely.
GRACEFUL_SECONDS = 10
HTTP_PROTOCOL = "chatkit_postgres.api.http_protocol:BoundedHttpProtocol"
APPLICATION = "chatkit_postgres.cli.serve:create_app_of_worker"
REPORT = "CHATKIT_POSTGRES_START_REPORT"
"""The environment variable with the file to which a worker writes why it cannot start."""
STARTED = "CHATKIT_POSTGRES_STARTED"
"""The environment variable with the address and the embedded database, as JSON, for workers."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
) -> None:
    """Start the server. Without DATABASE_URL, it starts and migrates an embedded PostgreSQL."""
    settings = load_settings()
    problems = Deployment(settings, host).problems() + _port_problems(host, port)
    if problems:
        raise ConfigurationError(problems)
    from chatkit_postgres.observability.logs import configure_logging, get_logger

    configure_logging(level=settings.log_level, log_format=settings.log_format)
    with _terminated_as_interrupted(), reserved_database(settings) as (url, start_database):
        from chatkit_postgres.db.migrations import upgrade
        from chatkit_postgres.main import deploy

        embedded_url = url.render_as_string(hide_password=False) if settings.is_embedded else None
        os.environ[STARTED] = json.dumps({"host": host, "embedded_url": embedded_url})
        deployment = Deployment(settings, host, embedded_url)
        # Built before the database is created; also if each worker builds its own, so that a problem is reported once.
        app = deploy(deployment, unknown=unknown_settings())
        start_database()
        if settings.is_embedded:
            upgrade(url)
        else:
            check_fitness(url)
        typer.echo(_greeting(deployment, host, port), err=True)
        if settings.is_embedded and not deployment.is_dev:
            cure = "DATABASE_URL, which is not set or empty, for anything but a laptop"
            get_logger(__name__).warning("database_is_embedded", directory=str(settings.data_dir.resolve()), cure=cure)
        options: dict[str, Any] = {
            "host": host,
            "port": port,
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_keep_alive": settings.keep_alive_seconds,
            "timeout_graceful_shutdown": GRACEFUL_SECONDS,
            "http": HTTP_PROTOCOL,
            "h11_max_incomplete_event_size": settings.max_header_bytes,
            "ws": "none",
        }
        import uvicorn

        with suppress(KeyboardInterrupt):
            if workers > 1 and not reload:
                _run_workers(uvicorn.Config(APPLICATION, factory=True, workers=workers, **options))
            elif reload:
                uvicorn.run(APPLICATION, factory=True, reload=True, **options)
            else:
                uvicorn.run(app, **options)


def _run_workers(config: "Config") -> None:
    """Run workers until they end. Raises ConfigurationError with the reported problems if one cannot start, in which
    case uvicorn ends all of them."""
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report"
        os.environ[REPORT] = str(report)
        supervisor = Multiprocess(config, sockets=[config.bind_socket()])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            # Several workers may have reported the same problem.
            reported = report.read_text().splitlines() if report.exists() else ["a worker could not start"]
            raise ConfigurationError(list(dict.fromkeys(reported)))


def create_app_of_worker() -> "FastAPI":
    """Build the application in a process of --workers or --reload. Exits on a ConfigurationError."""
    from uvicorn.config import STARTUP_FAILURE

    from chatkit_postgres.main import deploy

    try:
        return deploy(Deployment(load_settings(), **json.loads(os.environ[STARTED])), unknown=unknown_settings())
    except ConfigurationError as error:
        report = os.environ.get(REPORT)
        if report is None:
            typer.echo(str(error), err=True)
        else:
            with Path(report).open("a") as file:
                file.write(f"{error}\n")
        sys.exit(STARTUP_FAILURE)


def _port_problems(host: str, port: int) -> list[str]:
    """Check for a port in use before anything is started: the printed URL would be another server's.

    uvicorn reports all other problems of an address.
    """
    with suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                # As uvicorn does, so that connections of a server that has just ended do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if _is_taken(probe, address):
                    other = f"--port {port + 10}"
                    start = f'make run ARGS="{other}"' if _is_checkout() else f"chatkit-postgres serve {other}"
                    return [f"--port: {port} is taken by another server. Choose one: {start}"]
    return []


def _is_checkout() -> bool:
    """Whether the package runs from a clone of the repository, which has make."""
    directory = Path(__file__).resolve().parents[2]
    return (directory / "Makefile").is_file() and (directory / "migrations").is_dir()


def _is_taken(probe: socket.socket, address: Any) -> bool:
    try:
        probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _greeting(deployment: Deployment, host: str, port: int) -> str:
    settings = deployment.settings
    shown = "localhost" if is_loopback(host) else host
    database = f"embedded PostgreSQL in {settings.data_dir.resolve()}" if settings.is_embedded else "DATABASE_URL"
    model = "the built-in demo model" if settings.uses_demo_model else settings.model or "the default model"
    url = f"http://{shown}:{port}" if deployment.is_dev else f"http://{shown}:{port}/api/chatkit"
    page = "" if deployment.is_dev else "\n  no playground: a key is configured, so this is not development mode"
    return f"\n  chatkit-postgres {__version__}  {url}\n  {settings.assistant} on {model}\n  {database}{page}\n"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """End the process on SIGTERM and SIGHUP as on Ctrl-C, so that the embedded server is stopped too.

    uvicorn handles these signals while it runs, and raises them again when it is done.
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
