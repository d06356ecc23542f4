import pytest

from chatkit_postgres.assistant.titles import title_of
from chatkit_postgres.attachments.kinds import shown_name
from tests.support.items import user_message


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Hello", "Hello"),
        ("\n  Two   words \nand more", "Two words"),
        ("# A heading", "A heading"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("```x``` why?", "```x``` why?"),
        ("   ", None),
        ("\u202eright to left", "right to left"),
        ("word " * 30, " ".join(["word"] * 12) + "…"),
        ("x" * 100, "x" * 60 + "…"),
        ("漢" * 100, "漢" * 60 + "…"),
    ],
)
def test_a_title_is_the_first_line_cut_at_a_word(said: str, title: str | None) -> None:
    assert title_of(user_message("t", "m", said)) == title


JOINED = {
    "Persian": "می\u200cخواهم بدانم",  # noqa: RUF001
    "Hindi": "क्\u200dष क्\u200cष",
    "Sinhala": "ශ්\u200dරී ලංකා",
    "a family": "👨\u200d👩\u200d👧 at home",
}


@pytest.mark.parametrize("language", JOINED)
def test_joiners_stay_in_titles_and_names_of_files(language: str) -> None:
    text = JOINED[language]
    assert title_of(user_message("t", "m", text)) == text
    assert shown_name(f"folder/{text}.txt") == f"{text}.txt"


@pytest.mark.parametrize("nothing", ["\u200d", "\u200c\u200d \u200d", "\u202e\u200d", "\x00\u200c"])
def test_joiners_alone_are_nothing(nothing: str) -> None:
    assert title_of(user_message("t", "m", nothing)) is None
    assert shown_name(nothing) == "file"


@pytest.mark.parametrize("control", ["\u202e", "\u2066", "\u200e", "\ufeff", "\x07", "\x9b", "\ud800"])
def test_what_a_screen_obeys_goes(control: str) -> None:
    assert title_of(user_message("t", "m", f"a{control}b")) == "ab"
    assert shown_name(f"a{control}b.txt") == "ab.txt"


def test_no_joiner_is_left_where_a_title_is_cut() -> None:
    assert title_of(user_message("t", "m", "x" * 59 + "👨\u200d👩")) == "x" * 59 + "👨…"
