"""Reads the parameters of a query."""

from collections.abc import Mapping

from chatkit_postgres.errors import Unprocessable


def whole_number(query: Mapping[str, str], name: str, *, maximum: int) -> int | None:
    """None if it is not given. Raises Unprocessable for anything but 1 to ``maximum``."""
    given = query.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 9 and 1 <= int(given) <= maximum):
        raise Unprocessable(f"{name}: 1 to {maximum}.")
    return int(given)
