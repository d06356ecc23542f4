"""How texts are cut into words, and queries into terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkit_postgres.errors import Unprocessable
from chatkit_postgres.store.search_query import parse_query
from chatkit_postgres.store.snippets import LENGTH, snippet_of
from chatkit_postgres.store.words import MAX_VECTOR_BYTES, lexemes_of, tsvector_of, words_of


@pytest.mark.parametrize(
    ("text", "lexemes"),
    [
        ("Straße, STRASSE", ["strasse", "strasse"]),
        ("naïve na\u0131\u0308ve", ["naive", "naive"]),
        ("Łódź Øre Æther", ["lodz", "ore", "aether"]),
        ("ORA-00942 module_x v1.2", ["ora", "00942", "module", "x", "v1", "2"]),
        ("Ёлка и ёж", ["елка", "и", "еж"]),
        ("كِتَابٌ أحمد", ["كتاب", "احمد"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("Donau\u00addampf", ["donaudampf"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("東京都へ", ["東京", "京都", "都へ", "へ"]),
        ("ｱﾊﾟｰﾄ", ["アパ", "パー", "ート", "ト"]),
        ("서울에", ["서울", "울에", "에"]),
        ("ไทย", ["ไท", "ทย", "ย"]),
        ("ไท\u200bย", ["ไท", "ทย", "ย"]),
        ("ＡＢＣ１２", ["abc12"]),
        ("... ?! 🎉", []),
    ],
)
def test_words(text: str, lexemes: list[str]) -> None:
    assert [word.lexeme for word in words_of(text)] == lexemes


@given(st.text() | st.text(alphabet="aé ßİ日ท่\u200b\u0301-_9ﬁ½'@"))
def test_the_quick_way_finds_the_same_words(text: str) -> None:
    assert lexemes_of(text) == [word.lexeme for word in words_of(text)]


def test_a_very_long_text_stays_within_what_a_tsvector_takes() -> None:
    text = " ".join(f"w{number}" for number in range(300_000))
    assert 100_000 < len(tsvector_of(text).encode()) < 2 * MAX_VECTOR_BYTES


@pytest.mark.parametrize("query", ["", "  ", "x" * 1001, " ".join(f"w{number}" for number in range(51)), "東" * 202])
def test_a_query_that_cannot_be_meant_is_refused(query: str) -> None:
    with pytest.raises(Unprocessable, match="q: "):
        parse_query(query)


@pytest.mark.parametrize("query", ["-word", '-"two words"', "&|!():*<->", '"', "🎉", "\x00", "''''", "\\\\"])
def test_a_query_without_a_word_that_must_be_there_finds_nothing(query: str) -> None:
    assert parse_query(query).finds_nothing


@pytest.mark.parametrize(
    ("query", "tsquery"),
    [
        ("two words", "('two') & ('words')"),
        ('"two words', "('two' <1> 'words')"),
        ("“two words” -three", "('two' <1> 'words') & !('three')"),
        ("ORA-00942", "('ora' <1> '00942')"),
        ("a:*&b", "('a' <1> 'b')"),
        ("pip install --upgrade x-y", "('pip') & ('install') & ('upgrade') & ('x' <1> 'y')"),
        ("same same", "('same')"),
        ("東", "('東':*)"),
        ("東京都", "('東京' <1> '京都')"),
        ("機3号", "('機':* <1> '3' <1> '号':*)"),
        ("手机3", "('手机' <2> '3')"),
    ],
)
def test_terms(query: str, tsquery: str) -> None:
    assert parse_query(query).tsquery() == tsquery


@pytest.mark.parametrize(
    ("text", "query", "snippet"),
    [
        (
            "A <b>bold</b> & brave text",
            "BRAVE bold",
            "A &lt;b&gt;<mark>bold</mark>&lt;/b&gt; &amp; <mark>brave</mark> text",
        ),
        ("Fehler ORA-00942!", "ora-00942", "Fehler <mark>ORA-00942</mark>!"),
        ("東京都庁へ", "京都", "東<mark>京都</mark>庁へ"),
        ("東京都庁へ", "都", "東京<mark>都</mark>庁へ"),
        ("one\n\n  two", "two", "one <mark>two</mark>"),
        ("no match", "elsewhere", "no match"),
    ],
)
def test_snippets(text: str, query: str, snippet: str) -> None:
    assert snippet_of(text, parse_query(query)) == snippet


def test_a_snippet_is_the_piece_with_the_most_words() -> None:
    text = "alpha " + "filler " * 500 + "and alpha beside beta here " + "filler " * 500
    snippet = snippet_of(text, parse_query("beta alpha"))
    assert "<mark>alpha</mark> beside <mark>beta</mark>" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) < LENGTH + 60


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a " * 16_000, "日" * 32_000, "a b " * 8_000])
def test_a_text_of_one_word_takes_no_square_of_time(text: str) -> None:
    """A second for ten; minutes, if each match were compared with each other one."""
    for _ in range(10):
        snippet_of(text, parse_query("a 日 b"))


@pytest.mark.timeout(20)
def test_many_marks_on_a_letter_take_no_square_of_time() -> None:
    assert tsvector_of("e" + "\u0301\u0323" * 500_000) == "'e':1"
    tsvector_of("日" + "\u0301\u0323" * 500_000)
