import pytest

from app.assistant.titles import title_of
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
