"""A query as a user types it: words in any order, "quoted phrases", and -words that must not be there."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store.words import MAX_LEXEME, Word, quoted, runs_of

MAX_CHARACTERS = 1000
MAX_TERMS = 50
MAX_LEXEMES = 200

_QUOTES = str.maketrans("“”„«»", '"' * 5)
# A minus excludes what follows it at once, and is not one of several, as in --upgrade.
_TERM = regex.compile(r'(?P<minus>(?<![^\s"])-(?=[\p{L}\p{M}\p{N}"]))?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')


@dataclass(frozen=True, slots=True)
class Part:
    """A lexeme of a term."""

    lexeme: str
    offset: int
    """Words after the first one of the term."""
    is_beginning: bool
    """Whether any lexeme that begins so fits."""

    def fits(self, word: Word) -> bool:
        return word.lexeme.startswith(self.lexeme) if self.is_beginning else word.lexeme == self.lexeme


@dataclass(frozen=True, slots=True)
class Term:
    parts: Sequence[Part]
    is_excluded: bool

    def tsquery(self) -> str:
        written = _lexeme(self.parts[0])
        for before, part in zip(self.parts, self.parts[1:], strict=False):
            written = f"{written} <{part.offset - before.offset}> {_lexeme(part)}"
        return f"!({written})" if self.is_excluded else f"({written})"


@dataclass(frozen=True, slots=True)
class Match:
    """Where a term is in a text, in characters."""

    term: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SearchQuery:
    terms: Sequence[Term]

    @property
    def finds_nothing(self) -> bool:
        """Whether it names no word that must be there."""
        return all(term.is_excluded for term in self.terms)

    def tsquery(self) -> str:
        """For a cast to ``tsquery``."""
        return " & ".join(term.tsquery() for term in self.terms)

    @property
    def required(self) -> int:
        """How many terms must be there."""
        return sum(not term.is_excluded for term in self.terms)

    def matches(self, words: Sequence[Word]) -> Iterator[Match]:
        """The places of the words that must be there, as the tsquery finds them."""
        places, beginnings = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        for place, word in enumerate(words):
            places[word.lexeme].append(place)
            beginnings[word.lexeme[0]].append(place)
        for number, term in enumerate(self.terms):
            if term.is_excluded:
                continue
            first, last = term.parts[0], term.parts[-1]
            for place in (beginnings if first.is_beginning else places).get(first.lexeme, ()):
                end = words[place + last.offset] if place + last.offset < len(words) else None
                if end is not None and all(part.fits(words[place + part.offset]) for part in term.parts[1:]):
                    yield Match(number, words[place].start, end.start + 1 if last.is_beginning else end.end)


def parse_query(text: str) -> SearchQuery:
    """Raises Unprocessable for an empty query, and one that is too long."""
    if not text.strip():
        raise Unprocessable("q: write what to look for.")
    if len(text) > MAX_CHARACTERS:
        raise Unprocessable(f"q: at most {MAX_CHARACTERS} characters.")
    terms = []
    for found in _TERM.finditer(text.translate(_QUOTES)):
        parts = tuple(_parts(found["word"] if found["phrase"] is None else found["phrase"]))
        if parts:
            terms.append(Term(parts, is_excluded=found["minus"] is not None))
    terms = list(dict.fromkeys(terms))
    if len(terms) > MAX_TERMS:
        raise Unprocessable(f"q: at most {MAX_TERMS} words.")
    if sum(len(term.parts) for term in terms) > MAX_LEXEMES:
        raise Unprocessable(f"q: at most {MAX_LEXEMES} characters without spaces between them.")
    return SearchQuery(tuple(terms))


def _parts(text: str) -> Iterator[Part]:
    """As ``words_of`` places the words of a text. In a paired run, each pair is looked for; the last character, which
    may be followed by others in the text, is part of the last pair."""
    offset = 0
    for run in runs_of(text):
        if not run.is_paired:
            yield Part(run.text[:MAX_LEXEME], offset, is_beginning=False)
            offset += 1
            continue
        if len(run.text) == 1:
            yield Part(run.text, offset, is_beginning=True)
        for place in range(len(run.text) - 1):
            yield Part(run.text[place : place + 2], offset + place, is_beginning=False)
        offset += len(run.text)


def _lexeme(part: Part) -> str:
    return quoted(part.lexeme) + (":*" if part.is_beginning else "")
