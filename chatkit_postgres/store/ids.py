"""String ids of the protocol and the UUIDs of the rows they name.

A row's UUID is computed from the string, so saving the same item twice meets the same row. New ids carry 128
random bits: the SDK's default of 32 has even odds of a clash at 77,000 items.
"""

import secrets
from functools import lru_cache
from uuid import NAMESPACE_DNS, UUID, uuid5

from chatkit.store import StoreItemType
from chatkit.types import ThreadItem

_PREFIXES: dict[StoreItemType, str] = {
    "thread": "thr",
    "message": "msg",
    "tool_call": "tc",
    "workflow": "wf",
    "task": "tsk",
    "attachment": "atc",
    "sdk_hidden_context": "shcx",
}


_KINDS: dict[str, StoreItemType] = {
    "client_tool_call": "tool_call",
    "task": "task",
    "workflow": "workflow",
    "sdk_hidden_context": "sdk_hidden_context",
}


def kind_of(item: ThreadItem) -> StoreItemType:
    """The kind of id that an item has."""
    return _KINDS.get(item.type, "message")


APPROVAL_PREFIX = "apr_"
"""How the ids of items begin that ask for an approval."""


def new_id(kind: StoreItemType) -> str:
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


def new_approval_id() -> str:
    return APPROVAL_PREFIX + secrets.token_hex(16)


# Several statements of a turn need it.
@lru_cache(maxsize=4096)
def session_uuid(thread_id: str) -> UUID:
    return uuid5(NAMESPACE_DNS, f"chatkit-{thread_id}")


def owner_uuid(user_id: str) -> UUID:
    """Identifies a user's list of threads in cursors."""
    return uuid5(NAMESPACE_DNS, f"chatkit-owner-{user_id}")


def message_uuid(session_id: UUID, item_id: str) -> UUID:
    return uuid5(session_id, item_id)
