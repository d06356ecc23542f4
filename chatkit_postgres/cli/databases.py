"""Opens the database of a command: the configured one, or the embedded one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from chatkit_postgres.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from sqlalchemy import URL


@contextmanager
def explained() -> Iterator[None]:
    """Turn database errors in the block into a one-line ConfigurationError."""
    from asyncpg import InterfaceError, PostgresError
    from sqlalchemy.exc import SQLAlchemyError

    from chatkit_postgres.db.failures import MIGRATE, UNKNOWN_NAMES, sqlstate
    from chatkit_postgres.errors import DatabaseUnavailable

    try:
        yield
    except BrokenPipeError:
        # Whoever reads this command's output has enough of it.
        raise SystemExit(1) from None
    except (SQLAlchemyError, PostgresError, InterfaceError, OSError, DatabaseUnavailable) as error:
        cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
        lines = str(getattr(cause, "orig", getattr(cause, "cause", cause))).splitlines()
        sentence = lines[0] if lines else type(cause).__name__
        if cause is not None and sqlstate(cause) in UNKNOWN_NAMES:
            sentence += f": it was not migrated, run {MIGRATE}"
        raise ConfigurationError([f"DATABASE_URL: {sentence}"]) from None


def check_fitness(url: "URL") -> None:
    """Raises ConfigurationError for an unsuitable database. One that cannot be reached passes: it may fit later."""
    from chatkit_postgres.db.fitness import misfits_at

    misfits: list[str] = []
    with suppress(ConfigurationError), explained():
        misfits = misfits_at(url, migrates=False)
    if misfits:
        raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])


@contextmanager
def reserved_database(settings: Settings) -> "Iterator[tuple[URL, Callable[[], None]]]":
    """The URL of the configured or the embedded database, and a function that starts the embedded one (for the
    configured one, it does nothing). The embedded database is stopped when the block ends."""
    from chatkit_postgres.db.address import normalised_url
    from chatkit_postgres.db.cluster import EmbeddedPostgresError
    from chatkit_postgres.db.embedded import EmbeddedPostgres

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
    """The URL of the configured database, or of the embedded one, which runs during the block."""
    with reserved_database(settings) as (url, start):
        start()
        yield url


@contextmanager
def any_database(settings: Settings) -> "Iterator[URL]":
    """Like ``own_database``, but use the embedded database of a server that is already running."""
    from chatkit_postgres.db.embedded import EmbeddedPostgres

    if settings.is_embedded:
        embedded = EmbeddedPostgres(settings.data_dir / "postgres", binaries=settings.postgres_bin)
        running = embedded.running_url()
        if running is not None:
            yield running
            return
    with own_database(settings) as url:
        yield url
