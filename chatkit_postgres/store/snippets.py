"""Snippets of found texts, with the matches marked."""

import html
import re
from collections.abc import Sequence

from chatkit_postgres.store.search_query import Match, SearchQuery
from chatkit_postgres.store.words import words_of

BEFORE = 60
LENGTH = 240
"""Characters of the text; marks and escapes come on top."""

MAX_CHARACTERS = 200_000
"""Of a text that is searched for matches. A match behind them is found, and not marked."""

_BLANKS = re.compile(r"\s+")


def snippet_of(text: str, query: SearchQuery) -> str:
    """A piece of the text around most of the query's words, as HTML: escaped, with the matches in ``<mark>``."""
    text = text[:MAX_CHARACTERS]
    matches = sorted(query.matches(list(words_of(text))), key=lambda match: (match.start, match.end))
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
    best, most = 0, 0
    for number, match in enumerate(matches):
        near = {match.term}
        for other in matches[number + 1 :]:
            if other.end > match.start + LENGTH - BEFORE:
                break
            near.add(other.term)
        if len(near) > most:
            best, most = match.start, len(near)
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
