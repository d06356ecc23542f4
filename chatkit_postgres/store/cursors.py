"""Where a page ends, in one text: the id of its last row, and the place of that row in the order.

With the place in it, a cursor goes on where it was when its row is deleted meanwhile. A plain id is a cursor as well,
as in the SDK's own stores, for as long as its row is there. The check at the end binds a cursor to its list: one of
another thread or user is told from one whose row is gone. It keeps no secret, because every statement takes the owner.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

CHECK_DIGITS = 12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_PLACE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    row_id: str
    place: int | None
    """None in a plain id."""


def encode(list_id: UUID, row_id: str, place: int) -> str:
    return f"{row_id}~{place}~{_check(list_id, row_id, place)}"


def decode(list_id: UUID, text: str) -> Cursor:
    row_id, *rest = text.rsplit("~", 2)
    if len(rest) == 2 and rest[0].isascii() and rest[0].isdecimal():
        place = int(rest[0][:20])
        if place <= MAX_PLACE and text == encode(list_id, row_id, place):
            return Cursor(row_id, place)
    return Cursor(text, None)


def place_of(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def time_at(place: int | None) -> datetime | None:
    try:
        return EPOCH + place * MICROSECOND if place is not None else None
    except OverflowError:
        return None


def _check(list_id: UUID, row_id: str, place: int) -> str:
    # As in a row's UUID, a lone surrogate has no bytes of its own.
    return uuid5(list_id, f"{row_id}~{place}".encode(errors="replace").decode()).hex[:CHECK_DIGITS]
