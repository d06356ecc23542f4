"""Cleans, filters and shortens text."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

JOINERS = "\u200c\u200d"
"""The zero-width non-joiner and joiner: removing them changes Persian, Hindi and Sinhala words, and many emoji."""


MAX_CUT_MARK = 64
"""Characters: the maximum length of the mark in a text that was cut."""


def is_text_character(character: str) -> bool:
    """Whether a character is visible or joins letters; controls, direction marks and surrogates are not."""
    return character in JOINERS or not unicodedata.category(character).startswith("C")


def header_fault(value: str) -> str | None:
    """Why an HTTP header cannot carry a value (RFC 9110, 5.5), without the value, which may be secret; None if it
    can."""
    if value != value.strip():
        return "it begins or ends with a blank or a line break"
    place = next((place for place, sign in enumerate(value, 1) if not "\x20" <= sign <= "\x7e" and sign != "\t"), None)
    if place is None:
        return None
    return f"its character {place} is no visible ASCII: perhaps it was shortened, or has a line break"


def clean_text(text: str) -> str:
    """Join surrogate pairs, replace lone surrogates and NUL, and leave all other characters unchanged."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_json(value: Any) -> Any:
    """Return a JSON value with every string in it cleaned."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_json(key): clean_json(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(element) for element in value]
    return value


def cut_middle(text: str, max_length: int) -> str:
    """Shorten a text to its first and last ``max_length // 2`` characters, with a mark between them that counts the
    omitted ones. The result is up to MAX_CUT_MARK longer than ``max_length``."""
    if len(text) <= max_length:
        return text
    half = max_length // 2
    return f"{text[:half]}{cut_mark(len(text) - 2 * half)}{text[len(text) - half :]}"


def common_length(lengths: Iterable[int], room: int) -> int:
    """The maximum length for each text, so that all texts together fit into ``room``."""
    ordered = sorted(lengths)
    for number, length in enumerate(ordered):
        share = room // (len(ordered) - number)
        if length > share:
            return share
        room -= length
    return ordered[-1] if ordered else 0


def cut_mark(left_out: int | str) -> str:
    return f"\n[... {left_out} characters are left out here ...]\n"


def plain_fields(value: Any) -> Any:
    """Models as the dicts that they were validated from: their own serialisers omit fields, and refuse some texts."""
    if isinstance(value, BaseModel):
        return {name: plain_fields(field) for name, field in value}
    if isinstance(value, dict):
        return {key: plain_fields(element) for key, element in value.items()}
    return [plain_fields(element) for element in value] if isinstance(value, list | tuple) else value
