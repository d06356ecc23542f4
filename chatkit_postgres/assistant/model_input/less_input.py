"""Shortens a model's input after a refusal: whole turns are removed first, the user's newest message never."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatkit_postgres.assistant.model_input.attachment_input import FILE_BEGINS
from chatkit_postgres.assistant.model_input.converter import is_question
from chatkit_postgres.assistant.model_input.input_shape import INSTRUCTING, NOTE_BEGINS
from chatkit_postgres.text import MAX_CUT_MARK, common_length, cut_middle

Item = Mapping[str, Any]

IMAGE_WEIGHT = 3000
"""In bytes of text: providers count about seven hundred tokens for an image."""
ENCODED = frozenset({"encrypted_content", "file_data", "image_url", "result"})
"""Members whose string is encoded data, not text."""
MIN_TEXT = 200
"""Minimum number of characters that are left of an output, a file or an answer."""
IMAGE_PLACEHOLDER = "[A picture stood here.]"


def weight_of(items: Sequence[Any]) -> int:
    """The approximate size in bytes."""
    return sum(_weight(item) for item in items)


def turns_of(items: Sequence[Item]) -> list[list[Item]]:
    """Split into turns, each of which begins with a message of the user; items before the first one belong to it."""
    turns: list[list[Item]] = []
    for item in items[instructions_in(items) :]:
        if not turns or (is_question(item) and any(map(is_question, turns[-1]))):
            turns.append([])
        turns[-1].append(item)
    return turns


def instructions_in(items: Sequence[Item]) -> int:
    """The number of items at the head with instructions, which belong to no turn and are never removed."""
    return next((n for n, item in enumerate(items) if item.get("role") not in INSTRUCTING), len(items))


def newest_turn(items: Sequence[Item]) -> list[Item]:
    turns = turns_of(items)
    return [*items[: instructions_in(items)], *(turns[-1] if turns else [])]


def weight_of_own_text(items: Sequence[Item]) -> int:
    """The weight of the user's own text in the newest message."""
    texts = [text for item in newest_turn(items) if is_question(item) for text in _own_texts(item)]
    return sum(map(_weight, texts))


def fitted(items: Sequence[Item], max_weight: int) -> list[Item]:
    """The newest turns that weigh no more than ``max_weight``. The user's own text in the newest turn is always left
    whole; all other texts in this turn are cut in the middle as far as needed."""
    turns = turns_of(items)
    head = list(items[: instructions_in(items)])
    chosen = turns.pop() if turns else []
    room = max_weight - weight_of(head) - weight_of(chosen)
    while turns and (weight := weight_of(turns[-1])) <= room:
        chosen = turns.pop() + chosen
        room -= weight
    return head + (chosen if room >= 0 else _cut(chosen, max_weight - weight_of(head)))


def has_images(items: Sequence[Item]) -> bool:
    return any(_is_image(part) for item in items for part in _parts(item))


def has_files(items: Sequence[Item]) -> bool:
    parts = [part for item in items if is_question(item) for part in _parts(item)]
    return any(_is_image(part) or str(part.get("text", "")).startswith(FILE_BEGINS) for part in parts)


def without_images(items: Sequence[Item]) -> list[Item]:
    """Replace images with a placeholder."""
    return [_without_images(item) for item in items]


def without_older_images(items: Sequence[Item]) -> list[Item]:
    turns = turns_of(items)
    newest = turns[-1] if turns else []
    return without_images(items[: len(items) - len(newest)]) + newest


def _without_images(item: Item) -> Item:
    if not any(map(_is_image, _parts(item))):
        return item
    name = "output" if "output" in item else "content"
    parts = [{"type": "input_text", "text": IMAGE_PLACEHOLDER} if _is_image(part) else part for part in _parts(item)]
    return {**item, name: parts}


def _cut(items: Sequence[Item], max_weight: int) -> list[Item]:
    lengths = [len(text) for item in items for text in _cuttable(item)]
    room = max_weight - weight_of(items) + sum(lengths)
    length = max(common_length(lengths, room) - MAX_CUT_MARK, MIN_TEXT)
    return [_with_texts(item, lambda text: cut_middle(text, length)) for item in items]


def _cuttable(item: Item) -> list[str]:
    """The texts of an item that the user did not write."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _with_texts(item, note)
    return found


def _with_texts(item: Item, changed: Callable[[str], str]) -> Item:
    """The item with each text changed that the user did not write."""
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
            return min(len(value), IMAGE_WEIGHT)
        # Bytes, because a character of a non-Latin script has more tokens.
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, Mapping):
        return IMAGE_WEIGHT if _is_image(value) else sum(_weight(member, key) for key, member in value.items())
    return sum(map(_weight, value)) if isinstance(value, list | tuple) else 1


def _parts(item: Item) -> list[Any]:
    content = item.get("content", item.get("output"))
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []


def _is_image(part: Mapping[str, Any]) -> bool:
    return part.get("type") in {"input_image", "image_url"}
