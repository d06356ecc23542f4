from typing import Any

import pytest

from chatkit_postgres.db import Statement


def test_parameters_are_numbered_and_typed() -> None:
    statement = Statement(
        "s", "SELECT :b, :owner, :b, '1'::text, x.sha256 = :sha256, ANY(:c)", b="bigint", sha256="text", c="uuid[]"
    )
    numbered = "SELECT $1::bigint, $2::text, $1::bigint, '1'::text, x.sha256 = $3::text, ANY($4::uuid[])"
    assert statement.driver_sql == f"/* chatkit:s */ {numbered}"
    assert statement.values({"owner": "o", "b": 1, "sha256": "d", "c": [], "more": None}) == [1, "o", "d", []]


@pytest.mark.parametrize(
    ("sql", "types", "sentence"),
    [
        ("SELECT :a", {}, r"the parameter :a has no type; write Statement\(.s., sql, a=.text.\)"),
        ("SELECT 1", {"a": "text"}, "there is a type for 'a', which is not in the SQL"),
        ("SELECT :b", {"a": "text", "b": "text"}, "there is a type for 'a'"),
        ("SELECT :a", {"a": "nonsense"}, "'nonsense' of :a is not one of text, "),
    ],
)
def test_parameters_and_types_must_agree(sql: str, types: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"statement s: {sentence}"):
        Statement("s", sql, **types)


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("to_char(now(), 'HH24:MI'), :owner", "to_char(now(), 'HH24:MI'), $1::text"),
        (r"'{" + '"a"' + r"\:true}'::jsonb, :owner", "'{" + '"a"' + ":true}'::jsonb, $1::text"),
        ("(ARRAY[1,2,3])[1:n], :owner", "(ARRAY[1,2,3])[1:n], $1::text"),
        ("x::text, :owner::text", "x::text, $1::text::text"),
    ],
)
def test_other_colons_are_left_alone(sql: str, sent: str) -> None:
    assert Statement("s", sql).driver_sql == f"/* chatkit:s */ {sent}"


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        Statement("s", "SELECT :a", a="text").values({"owner": "o"})
