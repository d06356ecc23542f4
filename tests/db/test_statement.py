import pytest

from chatkit_postgres.db.statement import ParameterType, Statement


def test_parameters_are_numbered_and_typed() -> None:
    statement = Statement(
        "s", "SELECT :b, :owner, :b, '1'::text, x.sha256 = :sha256, ANY(:c)", b="bigint", sha256="text", c="uuid[]"
    )
    numbered = "SELECT $1::bigint, $2::text, $1::bigint, '1'::text, x.sha256 = $3::text, ANY($4::uuid[])"
    assert statement.driver_sql == f"/* chatkit:s */ {numbered}"
    assert statement.values({"owner": "o", "b": 1, "sha256": "d", "c": [], "more": None}) == [1, "o", "d", []]


@pytest.mark.parametrize(
    ("sql", "types"), [("SELECT :a", {}), ("SELECT 1", {"a": "text"}), ("SELECT :a", {"b": "text"})]
)
def test_a_parameter_without_a_type_or_a_type_without_a_parameter_is_refused(
    sql: str, types: dict[str, ParameterType]
) -> None:
    with pytest.raises(ValueError, match=r"statement s: .*: a"):
        Statement("s", sql, **types)


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        Statement("s", "SELECT :a", a="text").values({"owner": "o"})
