"""Page sizes, and cursors: the id of a page's last row with the place of that row in the order.

Because of the place, a cursor still works after its row was deleted. A plain id is a cursor, too, as in the SDK's own
stores, while its row exists. The check at the end binds a cursor to its list, so that a cursor of another thread or
user is recognised. It is no secret: every statement takes the owner.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

MAX_ROWS = 100
MIN_ROWS = 1
DEFAULT_ROWS = 20
CHECK_DIGITS = 12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_PLACE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    row_id: str
    place: int | None
    """None in a plain id."""


def page_size(limit: int | None) -> int:
    return DEFAULT_ROWS if limit is None else max(MIN_ROWS, min(MAX_ROWS, limit))


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
