"""Parses JSON strictly: only unambiguous documents of limited depth and size are accepted.

``json.loads`` accepts input that RFC 8259 leaves open or forbids: duplicate member names (the last one wins), NaN,
1e400 as infinity, lone surrogates, and nesting up to the interpreter's recursion limit. This module rejects all of it,
except lone surrogates, which :func:`path_to_unsafe_text` finds.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_INTEGER = 2**63 - 1

# A string, or the unfinished one at the end, even if it ends within an escape. The pattern always matches at a quote
# and never backtracks, so no input makes it read a byte twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?+\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class StrictJsonError(ValueError):
    """The document is not acceptable JSON. The message is a clause about it: ``it names "a" twice``."""


class TooComplex(StrictJsonError):
    """The document exceeds the maximum depth or number of values."""


def loads(document: bytes, *, max_depth: int, max_values: int) -> Any:
    """Raises StrictJsonError. Strings may still hold NUL and lone surrogates: see :func:`path_to_unsafe_text`."""
    _measure(document, max_depth, max_values)
    try:
        return json.loads(
            document.decode(),
            object_pairs_hook=_object,
            parse_constant=_refused_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError:
        raise StrictJsonError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise StrictJsonError("it is not well-formed") from None


def path_to_unsafe_text(value: Any) -> tuple[str, str] | None:
    """The dotted path of the first string or member name that PostgreSQL cannot store, and the offending character."""
    for path, text in _texts(value, ()):
        held = "NUL" if "\x00" in text else "half of a surrogate pair" if _SURROGATE.search(text) else None
        if held is not None:
            return _SURROGATE.sub("\ufffd", ".".join(path).replace("\x00", "\ufffd")), held
    return None


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for name, member in value.items():
                yield (*path, name), name
                yield from _texts(member, (*path, name))
        case list():
            for number, element in enumerate(value):
                yield from _texts(element, (*path, str(number)))
        case _:
            pass


def _measure(document: bytes, max_depth: int, max_values: int) -> None:
    """Check depth and size before the parser recurses into the document or makes an object of every value."""
    bare = _STRING.sub(b"", document)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") >= max_values:
        raise TooComplex(f"it has more than {max_values} values")
    depth = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise TooComplex(f"it is nested deeper than {max_depth} levels")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        times = Counter(name for name, _ in members)
        twice = next(name for name in times if times[name] > 1)
        raise StrictJsonError(f"it names {json.dumps(twice[:100])} twice in one object")
    return made


def _refused_constant(name: str) -> NoReturn:
    raise StrictJsonError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    # Python is slow for thousands of digits, and refuses more than 4300 itself.
    if len(digits) > 20 or abs(int(digits)) > MAX_INTEGER:
        raise StrictJsonError("it holds an integer of more than 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise StrictJsonError("it holds a number that is too large")
    if number == 0 and re.search("[1-9]", re.split("[eE]", digits)[0]):
        raise StrictJsonError("it holds a number that is too small")
    return number
