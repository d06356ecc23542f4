"""The database a command works on: the configured one, or the embedded one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from chatkit_postgres.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from sqlalchemy import URL


@contextmanager
def explained() -> Iterator[None]:
    """What a database says against the block, as an error of the configuration, in one line."""
    from asyncpg import InterfaceError, PostgresError
    from sqlalchemy.exc import SQLAlchemyError

    from chatkit_postgres.errors import DatabaseUnavailable

    try:
        yield
    except (SQLAlchemyError, PostgresError, InterfaceError, OSError, DatabaseUnavailable) as error:
        cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
        lines = str(getattr(cause, "orig", getattr(cause, "cause", cause))).splitlines()
        raise ConfigurationError([f"DATABASE_URL: {lines[0] if lines else type(cause).__name__}"]) from None


def check_fitness(url: "URL") -> None:
    """Raises ConfigurationError for a database that does not fit; one that cannot be reached yet may fit later."""
    from chatkit_postgres.db.fitness import misfits_at

    misfits: list[str] = []
    with suppress(ConfigurationError), explained():
        misfits = misfits_at(url, migrates=False)
    if misfits:
        raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])


@contextmanager
def reserved_database(settings: Settings) -> "Iterator[tuple[URL, Callable[[], None]]]":
    """The configured database, or the embedded one, and the function that starts it, if it is to be started. It runs
    no longer than the block."""
    from chatkit_postgres.db.address import normalised_url
    from chatkit_postgres.db.embedded import EmbeddedPostgres, EmbeddedPostgresError

    if settings.database_url is not None:
        yield normalised_url(settings.database_url.get_secret_value()), lambda: None
        return
    embedded = EmbeddedPostgres(settings.data_dir / "postgres", binaries=settings.postgres_bin)

    def start() -> None:
        try:
            embedded.start()
        except EmbeddedPostgresError as error:
            raise ConfigurationError([str(error)]) from error

    try:
        url = embedded.reserve()
    except EmbeddedPostgresError as error:
        raise ConfigurationError([str(error)]) from error
    try:
        yield url, start
    finally:
        embedded.stop()


@contextmanager
def own_database(settings: Settings) -> "Iterator[URL]":
    """The configured database, or the embedded one, started here and for as long as the block runs."""
    with reserved_database(settings) as (url, start):
        start()
        yield url


@contextmanager
def any_database(settings: Settings) -> "Iterator[URL]":
    """The same, or the embedded one that a server has running already."""
    from chatkit_postgres.db.embedded import EmbeddedPostgres

    if settings.is_embedded:
        embedded = EmbeddedPostgres(settings.data_dir / "postgres", binaries=settings.postgres_bin)
        running = embedded.running_url()
        if running is not None:
            yield running
            return
    with own_database(settings) as url:
        yield url
