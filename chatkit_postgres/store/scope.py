"""Reads the owner, the turn and the claims from a request's context: an object with a ``user_id``, or a mapping with
that key."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chatkit.types import ClosedStatus, LockedStatus, ThreadMetadata

from chatkit_postgres.context import RequestContext, Turn
from chatkit_postgres.db.database import UniqueViolation
from chatkit_postgres.errors import KeyTaken, Superseded, ThreadClosed, ThreadLocked

MAX_ROWS = 100
MIN_ROWS = 1
DEFAULT_ROWS = 20


def owner_of(context: Any) -> str:
    """The user all statements are for. Raises TypeError rather than ever running without one."""
    user_id = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    if not isinstance(user_id, str) or not user_id:
        raise TypeError("the store needs a context with a non-empty user_id, as an attribute or as a key")
    if "\x00" in user_id:
        raise ValueError("a user_id cannot contain NUL")
    return user_id


def request_of(context: Any) -> RequestContext | None:
    """The RequestContext, also where somebody has made a plain dict of it; not where the dict is for another owner."""
    if isinstance(context, RequestContext):
        return context
    found = context.get("request") if isinstance(context, Mapping) else None
    return found if isinstance(found, RequestContext) and found.user_id == context.get("user_id") else None


def turn_of(context: Any, thread_id: str | None = None) -> Turn | None:
    """The turn a statement runs under; a turn fences its own thread, and no other."""
    request = request_of(context)
    turn = request.turn if request is not None else None
    if turn is None:
        return None
    if thread_id is not None and turn.thread_id not in {None, thread_id}:
        return None
    return turn


def claim_of(turn: Turn | None) -> dict[str, str | None]:
    """What the statement that opens a turn writes into the ledger."""
    return {
        "operation": turn.operation if turn is not None else None,
        "idempotency_key": turn.idempotency_key if turn is not None else None,
        "request_hash": turn.request_hash if turn is not None else None,
    }


@contextmanager
def claim_errors(turn: Turn | None) -> Iterator[None]:
    """Around the statement that opens a turn: an idempotency key that is taken is KeyTaken."""
    try:
        yield
    except UniqueViolation:
        if turn is None or turn.is_open or turn.idempotency_key is None:
            raise
        raise KeyTaken from None


def lost_fence(turn: Turn | None) -> Superseded:
    """The refusal of a write whose turn no longer owns the thread, noted where the turn's end is written."""
    if turn is not None:
        turn.error_code = Superseded.code
    return Superseded()


def claims_of(context: Any) -> dict[str, Any]:
    """What is kept of the owner's token."""
    request = request_of(context)
    return dict(request.claims) if request is not None else {}


def check_active(thread: ThreadMetadata) -> None:
    """Raises ThreadLocked or ThreadClosed."""
    match thread.status:
        case LockedStatus():
            raise ThreadLocked
        case ClosedStatus():
            raise ThreadClosed
        case _:
            pass


def bases_of(context: Any) -> dict[str, Mapping[str, str | None]] | None:
    """Threads as this request loaded them; None for a context that cannot remember any."""
    request = request_of(context)
    return request.thread_bases if request is not None else None


def clamped(limit: int | None) -> int:
    return DEFAULT_ROWS if limit is None else max(MIN_ROWS, min(MAX_ROWS, limit))
