"""Shortens a model's input after a refusal: whole turns are removed first, the user's newest message never."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatkit_postgres.assistant.attachment_input import FILE_BEGINS
from chatkit_postgres.assistant.converter import is_question
from chatkit_postgres.assistant.input_shape import INSTRUCTING, NOTE_BEGINS
from chatkit_postgres.text import MAX_CUT_MARK, common_length, cut_middle

Item = Mapping[str, Any]

PICTURE_WEIGHT = 3000
"""In bytes of text: what providers count for one is about seven hundred tokens."""
ENCODED = frozenset({"encrypted_content", "file_data", "image_url", "result"})
"""Members whose text is no text."""
MIN_TEXT = 200
"""Characters that are left of an output, a file or an answer in any case."""
NO_PICTURE = "[A picture stood here.]"


def weight_of(items: Sequence[Any]) -> int:
    """In bytes, about."""
    return sum(_weight(item) for item in items)


def turns_of(items: Sequence[Item]) -> list[list[Item]]:
    """Each begins with a message of the user; what stands before the first one is part of the first."""
    turns: list[list[Item]] = []
    for item in items[instructions_in(items) :]:
        if not turns or (is_question(item) and any(map(is_question, turns[-1]))):
            turns.append([])
        turns[-1].append(item)
    return turns


def instructions_in(items: Sequence[Item]) -> int:
    """How many items at the head instruct the model: they are part of no turn, and always stay."""
    return next((n for n, item in enumerate(items) if item.get("role") not in INSTRUCTING), len(items))


def newest_turn(items: Sequence[Item]) -> list[Item]:
    turns = turns_of(items)
    return [*items[: instructions_in(items)], *(turns[-1] if turns else [])]


def own_words(items: Sequence[Item]) -> int:
    """The weight of what the user says in their newest message."""
    texts = [text for item in newest_turn(items) if is_question(item) for text in _own_texts(item)]
    return sum(map(_weight, texts))


def fitted(items: Sequence[Item], most: int) -> list[Item]:
    """The newest turns that weigh no more; of the newest in any case what the user says, with everything else in it cut
    in the middle as far as needed."""
    turns = turns_of(items)
    head = list(items[: instructions_in(items)])
    kept = turns.pop() if turns else []
    room = most - weight_of(head) - weight_of(kept)
    while turns and (weight := weight_of(turns[-1])) <= room:
        kept = turns.pop() + kept
        room -= weight
    return head + (kept if room >= 0 else _cut(kept, most - weight_of(head)))


def has_pictures(items: Sequence[Item]) -> bool:
    return any(_is_picture(part) for item in items for part in _parts(item))


def has_files(items: Sequence[Item]) -> bool:
    parts = [part for item in items if is_question(item) for part in _parts(item)]
    return any(_is_picture(part) or str(part.get("text", "")).startswith(FILE_BEGINS) for part in parts)


def without_pictures(items: Sequence[Item]) -> list[Item]:
    """The same, saying where a picture stood."""
    return [_without_pictures(item) for item in items]


def without_older_pictures(items: Sequence[Item]) -> list[Item]:
    turns = turns_of(items)
    newest = turns[-1] if turns else []
    return without_pictures(items[: len(items) - len(newest)]) + newest


def _without_pictures(item: Item) -> Item:
    if not any(map(_is_picture, _parts(item))):
        return item
    name = "output" if "output" in item else "content"
    parts = [{"type": "input_text", "text": NO_PICTURE} if _is_picture(part) else part for part in _parts(item)]
    return {**item, name: parts}


def _cut(items: Sequence[Item], most: int) -> list[Item]:
    lengths = [len(text) for item in items for text in _cuttable(item)]
    room = most - weight_of(items) + sum(lengths)
    length = max(common_length(lengths, room) - MAX_CUT_MARK, MIN_TEXT)
    return [_with_texts(item, lambda text: cut_middle(text, length)) for item in items]


def _cuttable(item: Item) -> list[str]:
    """The texts of an item that are not the user's own words."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _with_texts(item, note)
    return found


def _with_texts(item: Item, changed: Callable[[str], str]) -> Item:
    """The item with each text changed that is not the user's own words."""
    name = "output" if "output" in item else "content"
    value = item.get(name) if "output" in item or "role" in item else None
    if isinstance(value, str):
        return {**item, name: changed(value)} if _is_cuttable(item, value) else item
    if not isinstance(value, list):
        return item
    parts = [
        {**part, "text": changed(text)}
        if isinstance(part, dict) and isinstance(text := part.get("text"), str) and _is_cuttable(item, text)
        else part
        for part in value
    ]
    return {**item, name: parts}


def _own_texts(item: Item) -> list[str]:
    content = item.get("content")
    texts = [content] if isinstance(content, str) else [part.get("text") for part in _parts(item)]
    return [text for text in texts if isinstance(text, str) and not text.startswith((NOTE_BEGINS, FILE_BEGINS))]


def _is_cuttable(item: Item, text: str) -> bool:
    if len(text) <= MIN_TEXT + MAX_CUT_MARK or item.get("role") in INSTRUCTING:
        return False
    return not is_question(item) or text.startswith((NOTE_BEGINS, FILE_BEGINS))


def _weight(value: Any, name: str = "") -> int:
    if isinstance(value, str):
        if name in ENCODED or value.startswith("data:"):
            return min(len(value), PICTURE_WEIGHT)
        # Bytes, because other scripts than ours have more tokens to a character.
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, Mapping):
        return PICTURE_WEIGHT if _is_picture(value) else sum(_weight(member, key) for key, member in value.items())
    return sum(map(_weight, value)) if isinstance(value, list | tuple) else 1


def _parts(item: Item) -> list[Any]:
    content = item.get("content", item.get("output"))
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []


def _is_picture(part: Mapping[str, Any]) -> bool:
    return part.get("type") in {"input_image", "image_url"}
