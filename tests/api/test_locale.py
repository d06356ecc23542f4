"""Which of the languages that a browser names is the user's."""

import pytest

from chatkit_postgres.api.authentication import _locale


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("de-CH,en;q=0.5", "de-CH"),
        ("en;q=0.1,de;q=0.9", "de"),
        ("*;q=0.5, fr", "fr"),
        ("en; q=0.8 , it ;Q=0.9", "it"),
        ("sv, nb", "sv"),
        ("en;q=0", None),
        ("en;q=high, da;q=0.1", "da"),
        ("*", None),
        ("", None),
        ("x" * 100, None),
        ("<script>, pl", "pl"),
    ],
)
def test_the_language_wanted_most_is_taken(header: str, locale: str | None) -> None:
    assert _locale(header) == locale
