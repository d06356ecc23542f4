"""Classifies the errors of statements and connections: which are transient, and which a retry cannot help."""

import asyncpg

UNIQUE_VIOLATION = "23505"
READ_ONLY = "25006"
UNKNOWN_NAMES = frozenset({"42P01", "42703", "42883"})
"""SQLSTATEs of a table, a column or a function that the database does not have: it was not migrated."""
MIGRATE = "chatkit-postgres migrate"
PRIMARY = "the address of the primary, or target_session_attrs=read-write"
"""What ``DATABASE_URL`` needs if its server is read-only."""

# asyncpg raises InternalClientError when it has read the server's shutdown message and not yet the EOF.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncpg.InternalClientError)


class UniqueViolation(Exception):
    """Another row has that key."""


class ConnectionSilent(OSError):
    """A connection that does not answer."""


class PoolExhausted(OSError):
    """All connections of the pool were in use for as long as the task may wait."""


class ConnectionLost(Exception):
    """The connection broke during a statement, and it is unknown whether that was committed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def sqlstate(error: BaseException) -> str | None:
    state = getattr(_cause_of(error), "sqlstate", None)
    return state if isinstance(state, str) else None


def reason_of(error: BaseException) -> str:
    """The SQLSTATE, or the name of the exception's class."""
    return sqlstate(error) or type(_cause_of(error)).__name__


def is_broken(error: BaseException) -> bool:
    """Whether another connection may succeed where this one failed."""
    return isinstance(error, TimeoutError | asyncpg.InternalClientError) or sqlstate(error) == READ_ONLY


def is_transient(error: BaseException) -> bool:
    """Whether the database is the cause, not the statement.

    40001 and 40P01: lost a race. 08xxx and 57P01 to 57P03: the connection or the server was shut down. 53xxx: out of
    resources. 28xxx and 3D000: the server refuses the login, as while a password is changed. 25006: it is read-only, as
    an old primary is after a failover. No SQLSTATE: the connection broke, timed out, or could not be opened.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # The schema was changed.
        return True
    state = sqlstate(error)
    if state is None:
        return isinstance(error, ConnectionLost | OSError | asyncpg.InterfaceError)
    return state in {"40001", "40P01", "57P01", "57P02", "57P03", READ_ONLY} or state[:2] in {"08", "28", "3D", "53"}


def is_worth_repeating(error: BaseException) -> bool:
    """False for a server without connections or memory, a refused login, and a pool that was exhausted throughout."""
    return (sqlstate(error) or "")[:2] not in {"28", "3D", "53"} and not isinstance(error, PoolExhausted)


def _cause_of(error: BaseException) -> BaseException:
    return error.cause if isinstance(error, ConnectionLost) else error
