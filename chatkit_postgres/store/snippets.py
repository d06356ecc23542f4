"""Snippets of found texts, with the matches marked."""

import html
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from chatkit_postgres.store.search_query import Match, SearchQuery
from chatkit_postgres.store.words import words_of

BEFORE = 60
LENGTH = 240
"""Characters of the text; marks and escapes come on top."""

MAX_CHARACTERS = 20_000
"""Maximum characters of a text that are looked through. A match behind them is found, and not marked."""

MAX_MATCHES = 1000

_BLANKS = re.compile(r"\s+")


def snippet_of(text: str, query: SearchQuery, max_characters: int = MAX_CHARACTERS) -> str:
    """A part of the text with most of the query's words, as HTML: escaped, with the matches in ``<mark>``."""
    text = text[:max_characters]
    found = islice(query.matches(list(words_of(text))), MAX_MATCHES)
    matches = sorted(found, key=lambda match: (match.start, match.end))
    start = _start(text, _best(matches))
    end = _end(text, start)
    pieces, place = ["…"] if start > 0 else [], start
    for match in matches:
        # Matches may overlap.
        begin, stop = max(match.start, place), min(match.end, end)
        if begin < stop:
            pieces += [_shown(text[place:begin]), "<mark>", _shown(text[begin:stop]), "</mark>"]
            place = stop
    pieces.append(_shown(text[place:end]))
    if end < len(text):
        pieces.append("…")
    return "".join(pieces).strip()


def _best(matches: Sequence[Match]) -> int:
    """Where the piece with the most different words begins."""
    best, most, end = 0, 0, 0
    near = Counter[int]()
    for match in matches:
        while end < len(matches) and matches[end].end <= match.start + LENGTH - BEFORE:
            near[matches[end].term] += 1
            end += 1
        if len(near) > most:
            best, most = match.start, len(near)
        near[match.term] -= 1
        # A term whose last match was this one is near no more; a match that is longer than the snippet never was.
        near = +near
    return best


def _start(text: str, match: int) -> int:
    """Before a match, at the beginning of a word."""
    if match <= BEFORE:
        return 0
    start = match - BEFORE
    blank = _BLANKS.search(text, start - 1, match)
    return blank.end() if blank else start


def _end(text: str, start: int) -> int:
    end = start + LENGTH
    if end >= len(text):
        return len(text)
    blank = max(text.rfind(blank, end - 40, end) for blank in (" ", "\n"))
    return blank if blank > start else end


def _shown(text: str) -> str:
    return html.escape(_BLANKS.sub(" ", text), quote=False)
