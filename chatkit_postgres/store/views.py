"""Parameters of statements: the visible part of a thread, the window of a retry, the claim of a turn."""

from uuid import UUID

from chatkit_postgres.store.session import RetryWindow, WriteSession


def view_of(session: WriteSession | None) -> dict[str, UUID | int | None]:
    """For statements with ``VISIBLE``."""
    return {
        "turn": session.turn_id if session is not None else None,
        "retry_from": session.retry.retry_from if session is not None and session.retry is not None else None,
    }


def window_of(retry: RetryWindow | None) -> dict[str, int | None]:
    """For statements that replace the answer of a retry."""
    return {
        "retry_from": retry.retry_from if retry is not None else None,
        "open_position": retry.open_position if retry is not None else None,
    }


def claim_of(session: WriteSession | None) -> dict[str, str | None]:
    """For statements that open a turn: its entry in the ledger."""
    return {
        "operation": session.operation if session is not None else None,
        "idempotency_key": session.idempotency_key if session is not None else None,
        "request_hash": session.request_hash if session is not None else None,
    }
