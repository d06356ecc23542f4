"""Explains why the database refused a write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from uuid import UUID

from chatkit.types import ClosedStatus, LockedStatus, ThreadMetadata

from chatkit_postgres.db.database import StatementRunner
from chatkit_postgres.db.failures import UniqueViolation
from chatkit_postgres.errors import (
    Conflict,
    KeyTaken,
    NotFound,
    Superseded,
    ThreadClosed,
    ThreadLocked,
    ThreadNotActive,
)
from chatkit_postgres.store import rows
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.sql.threads import LOAD_THREAD


def check_active(thread: ThreadMetadata) -> None:
    """Raises ThreadLocked or ThreadClosed."""
    match thread.status:
        case LockedStatus():
            raise ThreadLocked
        case ClosedStatus():
            raise ThreadClosed
        case _:
            pass


async def explain_refusal(
    database: StatementRunner,
    owner: str,
    session_id: UUID | None,
    *,
    fenced: WriteSession | None = None,
    if_active: Conflict | None = None,
) -> NoReturn:
    """Read the thread and raise the reason: NotFound if it was deleted while the statement waited; Superseded if the
    write was ``fenced`` by a session; ThreadLocked or ThreadClosed; else ``if_active``, or ThreadNotActive for a thread
    that was unlocked between the two statements."""
    found = await database.run(owner, LOAD_THREAD, session=session_id)
    if not found:
        raise NotFound
    if fenced is not None:
        raise lost_fence(fenced)
    check_active(rows.load_thread(found[0]))
    raise if_active or ThreadNotActive


def lost_fence(session: WriteSession) -> Superseded:
    """The error for a write whose turn no longer holds the fence."""
    session.is_superseded = True
    return Superseded()


@contextmanager
def claim_errors(session: WriteSession | None) -> Iterator[None]:
    """Around the statement that opens a turn: an idempotency key that is taken is KeyTaken."""
    try:
        yield
    except UniqueViolation:
        if session is None or session.is_open or session.idempotency_key is None:
            raise
        raise KeyTaken from None
