"""Model input as every server takes it: the roles, the text, what cannot be encoded; and less of it."""

import json
import random
from typing import Any

import pytest
from agents.models.chatcmpl_converter import Converter

from chatkit_postgres.assistant.model_input.input_shape import (
    EMPTY,
    GO_ON,
    NOT_ANSWERED,
    NOTE_BEGINS,
    NOTE_ENDS,
    USER_IS_SILENT,
    shaped_items,
    shaped_messages,
)
from chatkit_postgres.assistant.model_input.less_input import (
    fitted,
    newest_turn,
    turns_of,
    weight_of,
    without_older_images,
)
from tests.support.strict_model import refusal_of

NOTE = f"{NOTE_BEGINS}a note{NOTE_ENDS}"
PICTURE = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AAAA"}


def user(*texts: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text} for text in texts]}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text}


def call(number: int, output: Any = "said") -> list[dict[str, Any]]:
    call_id = f"call_{number}"
    return [
        {"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": call_id, "output": output},
    ]


ROLES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, Any]]]] = {
    "two of the user's": ([user("a"), user("b")], [("user", "a\n\nb")]),
    "three, with a note": ([user("a"), user(NOTE), user("b")], [("user", f"a\n\n{NOTE}\n\nb")]),
    "the assistant first": (
        [assistant("Hi"), user("a")],
        [("user", USER_IS_SILENT), ("assistant", "Hi"), ("user", "a")],
    ),
    "two of the assistant's": (
        [user("a"), assistant("b"), assistant("c"), user("d")],
        [("user", "a"), ("assistant", "b\n\nc"), ("user", "d")],
    ),
    "the assistant last": ([user("a"), assistant("b")], [("user", "a"), ("assistant", "b"), ("user", GO_ON)]),
    "a tool without an answer": (
        [user("a"), *call(1), user("b")],
        [("user", "a"), ("assistant", None), ("tool", "said"), ("assistant", NOT_ANSWERED), ("user", "b")],
    ),
    "words before a tool": (
        [user("a"), assistant("b"), *call(1), assistant("c"), user("d")],
        [("user", "a"), ("assistant", "b"), ("tool", "said"), ("assistant", "c"), ("user", "d")],
    ),
    "nothing at all": ([user(""), assistant(""), user(" "), *call(1, "")], []),
}


@pytest.mark.parametrize("kind", ROLES)
def test_roles_alternate_and_text_is_plain(kind: str) -> None:
    items, expected = ROLES[kind]
    messages: Any = Converter.items_to_messages(items)  # type: ignore[arg-type] # as the SDK takes them
    given = shaped_messages(messages)
    assert refusal_of("chat_completions", {"messages": given}) is None
    if expected:
        assert [(message["role"], message.get("content")) for message in given] == expected
    else:
        assert EMPTY in json.dumps(given)
    assert refusal_of("responses", {"input": shaped_items(items)}) is None


@pytest.mark.parametrize("shape", [shaped_messages, shaped_items])
def test_what_is_shaped_is_not_shaped_again_and_nothing_given_is_changed(shape: Any) -> None:
    given = [user("a"), user("b", NOTE), assistant("c"), assistant("d"), user("e")]
    before = json.dumps(given)
    once = shape(given)
    assert shape(once) == once
    assert json.dumps(given) == before


@pytest.mark.parametrize("broken", ["\ud800", "a\udfffb", "NUL \x00 in it", "\ud83d\ude00 pair"])
def test_what_cannot_be_encoded_is_replaced(broken: str) -> None:
    items = [user(broken), assistant(broken), *call(1, broken), *call(2, [{"type": "input_text", "text": broken}])]
    for given in (
        shaped_items(items),
        shaped_messages([{"role": "system", "content": broken}, *map(_message, items[:2])]),
    ):
        text = json.dumps(given, ensure_ascii=False)
        text.encode()
        assert "\\u0000" not in text
        assert "\ufffd" in text or "\U0001f600" in text


def _message(item: dict[str, Any]) -> dict[str, Any]:
    return {"role": item["role"], "content": item["content"]}


@pytest.mark.parametrize("shape", [shaped_items, shaped_messages])
def test_pictures_stay_where_they_are(shape: Any) -> None:
    kind = {"input_image": "input_text"}
    part = PICTURE if shape is shaped_items else {"type": "image_url", "image_url": {"url": "data:,"}}
    (merged,) = shape([user("a"), {"role": "user", "content": [part]}, user("b")])
    assert [kind.get(p["type"], p["type"]) for p in merged["content"]][1] in {"input_text", "image_url"}
    assert part in merged["content"]
    assert len(merged["content"]) == 3


def test_a_mark_for_a_cache_keeps_the_parts_apart() -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}
    assert shaped_messages([marked]) == [marked]


class TestLess:
    def test_whole_turns_go_first(self) -> None:
        items = [item for n in range(5) for item in (user(f"q{n} " + "x" * 1000), assistant("y" * 1000))]
        items.append(user("now"))
        kept = fitted(items, 5000)
        assert kept[0]["content"][0]["text"].startswith("q3")
        assert kept[-1] == user("now")
        assert weight_of(kept) <= 5000

    @pytest.mark.parametrize("most", [0, 100, 3000, 10_000])
    def test_the_users_newest_words_are_never_cut(self, most: int) -> None:
        words = "w" * 5000
        question = user(
            words, f'<Attachment name="a">{"f" * 9000}</Attachment>', f"{NOTE_BEGINS}{'n' * 9000}{NOTE_ENDS}"
        )
        items = [user("old"), assistant("a" * 9000), question, assistant("b" * 9000), *call(1, "o" * 90_000)]
        kept = fitted(items, most)
        assert kept[0]["content"][0]["text"] == words
        assert [item.get("role") or item["type"] for item in kept] == [
            "user",
            "assistant",
            "function_call",
            "function_call_output",
        ]
        assert kept[-1]["output"].startswith("o")
        assert weight_of(kept) <= max(most, 5000 + 5 * 700)

    def test_notes_begin_no_turn(self) -> None:
        items = [
            assistant("Hi"),
            user("one"),
            user(NOTE),
            assistant("1"),
            user(NOTE),
            user("two"),
            *call(1),
            user(NOTE),
        ]
        assert [len(turn) for turn in turns_of(items)] == [5, 4]
        assert newest_turn(items)[0] == user("two")

    @pytest.mark.parametrize("seed", range(50))
    def test_calls_keep_their_outputs(self, seed: int) -> None:
        rng = random.Random(seed)
        items: list[Any] = []
        for number in range(rng.randint(1, 40)):
            made = [
                [user("q" * rng.randint(1, 3000))],
                [assistant("a" * 2000)],
                call(number, "o" * rng.randint(0, 9000)),
            ]
            items += rng.choice(made)
        items.append(user("the question"))
        kept = fitted(items, rng.randint(0, 50_000))
        assert kept[-1] == user("the question")
        ids = [
            [item["call_id"] for item in kept if item.get("type") == kind]
            for kind in ("function_call", "function_call_output")
        ]
        assert ids[0] == ids[1]
        assert refusal_of("responses", {"input": shaped_items(kept)}) is None

    def test_older_pictures_are_named_and_the_newest_stays(self) -> None:
        old, new = user("old"), user("new")
        old["content"].append(PICTURE)
        new["content"].append(PICTURE)
        first, *_, last = without_older_images([old, assistant("a"), new])
        assert PICTURE not in first["content"]
        assert len(first["content"]) == 2
        assert last == new
