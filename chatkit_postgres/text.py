"""Cleans, filters and shortens text."""

import unicodedata
from collections.abc import Iterable
from typing import Any

JOINERS = "\u200c\u200d"
"""The zero-width non-joiner and joiner: without them Persian, Hindi and Sinhala words, and many emoji, are others."""


MAX_CUT_MARK = 64
"""Characters; a text that was cut is longer than it should be by no more."""


def is_text_character(character: str) -> bool:
    """Whether it is shown, or joins or parts letters; not a control, a direction mark, or half of a surrogate pair."""
    return character in JOINERS or not unicodedata.category(character).startswith("C")


def clean_text(text: str) -> str:
    """Surrogate pairs joined, lone surrogates and NUL replaced; anything else as it is."""
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
    """A JSON value with every text in it cleaned."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_json(key): clean_json(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(element) for element in value]
    return value


def cut_middle(text: str, most: int) -> str:
    """The first and the last half of so many characters, with a mark between them that says how many are left out: up
    to MAX_CUT_MARK longer than ``most``."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}{cut_mark(len(text) - 2 * half)}{text[len(text) - half :]}"


def common_length(lengths: Iterable[int], room: int) -> int:
    """The length to which the longer ones are cut, so that all of them together fit into the room."""
    ordered = sorted(lengths)
    for number, length in enumerate(ordered):
        share = room // (len(ordered) - number)
        if length > share:
            return share
        room -= length
    return ordered[-1] if ordered else 0


def cut_mark(left_out: int | str) -> str:
    return f"\n[... {left_out} characters are left out here ...]\n"
