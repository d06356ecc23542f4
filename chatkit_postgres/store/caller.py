"""The caller of a store method: its owner and, inside a request of ours, its write session."""

from collections.abc import Mapping
from typing import Any, Protocol

from chatkit_postgres.store.session import WriteSession


class Owner(Protocol):
    """Any object with a ``user_id`` of 1 to 255 characters."""

    @property
    def user_id(self) -> str: ...


Caller = Owner | Mapping[str, Any]
"""The context of the SDK's Store: an Owner, or a mapping with the key ``user_id``."""


class StoreContext:
    """A caller that carries what the store remembers during a request."""

    __slots__ = ()

    user_id: str
    claims: Mapping[str, Any]
    """Claims of the user, stored with the user's first thread."""
    session: WriteSession | None
    """Set for a request that runs a turn."""
    thread_bases: dict[str, Mapping[str, str | None]]
    """Thread id to its columns as this request loaded or last saved them. A column that differs was changed by this
    request."""


def owner_of(caller: Caller) -> str:
    """The user all statements are for. Raises TypeError if there is none."""
    user_id = caller.get("user_id") if isinstance(caller, Mapping) else getattr(caller, "user_id", None)
    if not isinstance(user_id, str) or not user_id:
        raise TypeError("the store needs a context with a non-empty user_id, as an attribute or as a key")
    if "\x00" in user_id:
        raise ValueError("a user_id cannot contain NUL")
    return user_id


def request_of(caller: object) -> StoreContext | None:
    """The StoreContext, also behind ``dict(context)``; None if that dict names another owner."""
    if isinstance(caller, StoreContext):
        return caller
    found = caller.get("request") if isinstance(caller, Mapping) else None
    if isinstance(found, StoreContext) and isinstance(caller, Mapping) and found.user_id == caller.get("user_id"):
        return found
    return None


def session_of(caller: Caller, thread_id: str | None = None) -> WriteSession | None:
    """The session a write belongs to. A session covers its own thread and no other."""
    request = request_of(caller)
    session = request.session if request is not None else None
    if session is None or (thread_id is not None and session.thread_id not in {None, thread_id}):
        return None
    return session


def required_session(caller: StoreContext) -> WriteSession:
    if caller.session is None:
        raise TypeError("this context has no write session")
    return caller.session
