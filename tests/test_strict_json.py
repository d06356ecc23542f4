"""What is refused, and in which words; and that looking takes one pass, whatever is looked at."""

import pytest

from chatkit_postgres.strict_json import StrictJsonError, loads, path_to_unsafe_text


def read(document: bytes) -> object:
    return loads(document, max_depth=5, max_values=20)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "not well-formed"),
        (b"{", "not well-formed"),
        (b"[1,]", "not well-formed"),
        (b"\xef\xbb\xbf{}", "not well-formed"),
        (b'"\xff"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"1e400", "a number that is too large"),
        (b"1e-400", "a number that is too small"),
        (b"9223372036854775808", "more than 64 bits"),
        (b"-" + b"9" * 5000, "more than 64 bits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'names "c" twice'),
        (b'{"\\u0061": 1, "a": 2}', 'names "a" twice'),
        (b"[" * 6 + b"]" * 6, "nested deeper than 5"),
        (b"[" + b"1," * 20 + b"1]", "more than 20 values"),
    ],
)
def test_what_is_not_json_as_we_take_it_is_named(document: bytes, says: str) -> None:
    with pytest.raises(StrictJsonError, match=says):
        read(document)


def test_what_json_allows_is_read() -> None:
    assert read(b' {"a": [0, -0.0, 1e5, 0e9999, 9223372036854775807, "\\u0000 ,,,[[[[[["]} ') == {
        "a": [0, -0.0, 1e5, 0.0, 2**63 - 1, "\x00 ,,,[[[[[["]
    }


def test_brackets_inside_strings_and_unfinished_strings_cost_one_pass() -> None:
    """Each would take hours if a byte were looked at once for every quote before it."""
    escapes = b'"' + b'\\"' * 2_000_000
    for document in (escapes, escapes + b"\\", b'"' * 2_000_001, b"\\" * 4_000_000, b'"' + b"[" * 4_000_000):
        with pytest.raises(StrictJsonError):
            read(document)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": ["ok", {"b": "x\x00"}]}, ("a.1.b", "NUL")),
        ({"a\x00": 1}, ("a\ufffd", "NUL")),
        (["\ud800"], ("0", "half of a surrogate pair")),
        ({"\udfff": []}, ("\ufffd", "half of a surrogate pair")),
        ("\x00", ("", "NUL")),
        ({"a": ["fine", 1, None, {"b": "\U0001f600"}]}, None),
    ],
)
def test_text_that_cannot_be_stored_is_found_by_its_path(value: object, path: object) -> None:
    assert path_to_unsafe_text(value) == path
