"""Splits a text into the words by which it is found, and writes them as a ``tsvector``.

A word is a run of letters, marks and digits, without case and accents; everything else separates words, so
``ORA-00942`` is two words, and a query for it the phrase of both. Scripts that write no spaces between words are cut
into overlapping pairs of characters; the last character of a run stands alone, so that each character begins a lexeme.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import regex

MAX_LEXEME = 100
"""Characters; PostgreSQL takes 2,046 bytes. The rest of a longer word is left out, in texts and queries alike."""

MAX_CACHED = 40
"""Characters of a run whose folded form is kept in memory."""

MAX_POSITION = 16_383
MAX_POSITIONS = 255
"""Maximum positions of one lexeme, as in a tsvector: words after these are found, but not in a phrase."""

MAX_VECTOR_BYTES = 900_000
"""PostgreSQL takes 1 MB."""

# Zero-width joiners, soft hyphens and the like, which are part of a word, and the Arabic tatweel, which only stretches.
_IGNORED = "\u00ad\u0640\u200b-\u200d\u2060\ufeff"
_PAIRED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc\uff70\uff9e\uff9f"
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}{_IGNORED}]--[{_PAIRED}]]+"
_RUN = regex.compile(rf"(?V1)(?P<paired>[{_PAIRED}][{_PAIRED}\p{{M}}{_IGNORED}]*)|{_WORD}")
_WORD_RUN = regex.compile(f"(?V1){_WORD}")
_PAIRED_CHARACTER = regex.compile(f"[{_PAIRED}]")
_ASCII_RUN = re.compile("[A-Za-z0-9]+")
"""The same in a text that has nothing else, five times as fast."""
_IGNORED_CHARACTERS = regex.compile(f"[{_IGNORED}]")
# In other scripts, a mark may be a vowel.
_ACCENTS = regex.compile(r"([\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}])\p{M}+")
# Normalising takes the square of the marks of one letter.
_MANY_MARKS = regex.compile(r"(\p{M}{8})\p{M}+")
# Letters with a stroke or without a dot have no decomposition.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i", "æ": "ae", "œ": "oe"}
)


class Word(NamedTuple):
    """A lexeme of a text, and the characters it stands for."""

    lexeme: str
    start: int
    end: int


class Run(NamedTuple):
    """Adjacent letters, marks and digits."""

    text: str
    """Folded."""
    is_paired: bool
    start: int
    end: int


def runs_of(text: str) -> Iterator[Run]:
    if text.isascii():
        for plain in _ASCII_RUN.finditer(text):
            yield Run(plain[0].lower(), False, plain.start(), plain.end())
        return
    for found in _RUN.finditer(text):
        folded = fold(found[0])
        if folded:
            yield Run(folded, found["paired"] is not None, found.start(), found.end())


def words_of(text: str) -> Iterator[Word]:
    """The words of a text in their order; a word's number in it, from 1, is its position in the tsvector."""
    for run in runs_of(text):
        if not run.is_paired:
            yield Word(run.text[:MAX_LEXEME], run.start, run.end)
            continue
        # Composed characters are counted in the folded text only.
        has_places = len(run.text) == run.end - run.start
        for place in range(len(run.text)):
            start, end = (run.start + place, run.start + place + 2) if has_places else (run.start, run.end)
            yield Word(run.text[place : place + 2], start, min(end, run.end))


def lexemes_of(text: str) -> list[str]:
    """Those of ``words_of``, several times as fast."""
    if text.isascii():
        runs = _ASCII_RUN.findall(text.lower())
    elif _PAIRED_CHARACTER.search(text) is None:
        runs = [folded for run in _WORD_RUN.findall(text) if (folded := fold(run))]
    else:
        lexemes: list[str] = []
        for run in runs_of(text):
            if run.is_paired:
                lexemes += [run.text[place : place + 2] for place in range(len(run.text))]
            else:
                lexemes.append(run.text[:MAX_LEXEME])
        return lexemes
    return [run[:MAX_LEXEME] for run in runs]


def tsvector_of(text: str) -> str:
    """For a cast to ``tsvector``."""
    positions: dict[str, list[int]] = {}
    room = MAX_VECTOR_BYTES
    for position, lexeme in enumerate(lexemes_of(text), 1):
        known = positions.get(lexeme)
        if known is None:
            room -= len(lexeme.encode()) + 8
            if room < 0:
                break
            positions[lexeme] = [min(position, MAX_POSITION)]
        elif position <= MAX_POSITION and len(known) < MAX_POSITIONS:
            room -= 2
            known.append(position)
    return " ".join(f"{quoted(lexeme)}:{','.join(map(str, places))}" for lexeme, places in positions.items())


def quoted(lexeme: str) -> str:
    """As tsvector and tsquery are written."""
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def owner_lexeme(owner: str) -> str:
    """Marks an index entry as the owner's: no word of a text or a query contains an @."""
    return "@" + blake2b(owner.encode(errors="replace"), digest_size=8).hexdigest()


def fold(run: str) -> str:
    """Without case, accents, and differences of width or composition."""
    if run.isascii():
        return run.lower()
    return _fold_often(run) if len(run) <= MAX_CACHED else _fold(run)


@lru_cache(maxsize=20_000)
def _fold_often(run: str) -> str:
    return _fold(run)


def _fold(run: str) -> str:
    run = _MANY_MARKS.sub(r"\1", run)
    run = _IGNORED_CHARACTERS.sub("", run)
    run = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", run).casefold())
    run = _ACCENTS.sub(r"\1", run).translate(_LETTERS)
    return unicodedata.normalize("NFKC", run)
