"""Shapes model input so that servers of OpenAI's two APIs accept it.

Chat templates of open models, and some providers (Mistral, Anthropic behind gateways), require alternating roles, a
first message of the user, an answer after the output of a tool, and a string for content that is only text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from openai.types.responses import EasyInputMessageParam, ResponseInputTextParam

from chatkit_postgres.text import clean_json

Message = dict[str, Any]
Given = Mapping[str, Any]

NOTE_BEGINS = "<Context>\n"
NOTE_ENDS = "\n</Context>"
"""Marks around a note: text in the role of the user that the user did not write."""
USER_IS_SILENT = f"{NOTE_BEGINS}The user has said nothing yet.{NOTE_ENDS}"
GO_ON = f"{NOTE_BEGINS}The assistant goes on.{NOTE_ENDS}"
NOT_ANSWERED = "[No answer was given.]"
EMPTY = "[Nothing]"
BETWEEN = "\n\n"
TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
INSTRUCTING = frozenset({"system", "developer"})


def note(text: str) -> EasyInputMessageParam:
    """A message of the user's role that the user did not write."""
    marked = f"{NOTE_BEGINS}{text}{NOTE_ENDS}"
    return EasyInputMessageParam(
        type="message", role="user", content=[ResponseInputTextParam(type="input_text", text=marked)]
    )


def shaped_messages(messages: Sequence[Given]) -> list[Message]:
    """Shape messages for chat completions: roles alternate, and a message of text alone is a string."""
    shaped: list[Message] = []
    for given in messages:
        message = _plain(given)
        if message.get("role") == "assistant" and not any(map(message.get, ("content", "tool_calls", "refusal"))):
            continue
        role, before = message.get("role"), shaped[-1].get("role") if shaped else "system"
        if role == before == "user" or (role == before == "assistant" and not shaped[-1].get("tool_calls")):
            shaped[-1] = _merged(shaped[-1], message)
            continue
        if role == "assistant" and all(earlier.get("role") in INSTRUCTING for earlier in shaped):
            shaped.append({"role": "user", "content": USER_IS_SILENT})
        if role == "user" and before == "tool":
            shaped.append({"role": "assistant", "content": NOT_ANSWERED})
        shaped.append(message)
    if shaped and shaped[-1].get("role") == "assistant":
        shaped.append({"role": "user", "content": GO_ON})
    return shaped


def shaped_items(items: Sequence[Given]) -> list[Message]:
    """Shape items for the responses API, where roles need not alternate: adjacent messages of the user are merged."""
    shaped: list[Message] = []
    for given in items:
        item = _plain(given)
        if item.get("role") == "assistant" and item.get("content") in ("", []):
            continue
        if shaped and item.get("role") == shaped[-1].get("role") == "user":
            shaped[-1] = _merged(shaped[-1], item)
        else:
            shaped.append(item)
    return shaped


def with_plain_answers(items: Sequence[Any]) -> list[Any]:
    """Turn the text of earlier answers into strings. ChatKit's own ThreadItemConverter, and a run that goes on, have
    output parts, which the Agents SDK accepts for the responses API only, and a status, which it accepts of parts
    only."""
    return [
        _without_status(item) | {"content": text} if (text := _answer_text(item)) is not None else item
        for item in items
    ]


def _without_status(item: Given) -> Message:
    return {name: value for name, value in item.items() if name != "status"}


def _answer_text(item: Any) -> str | None:
    """The text of an earlier answer; None if there is more than text, or the provider's id, which both APIs accept."""
    if not isinstance(item, dict) or item.get("role") != "assistant" or "id" in item:
        return None
    content = item.get("content")
    if not isinstance(content, list) or not content:
        return None
    if not all(isinstance(part, dict) and part.get("type") == "output_text" for part in content):
        return None
    return BETWEEN.join(str(part.get("text", "")) for part in content)


def _plain(given: Given) -> Message:
    message: Message = clean_json(given)
    content = message.get("content")
    if "role" in message and isinstance(content, list) and content and all(map(_is_text, content)):
        content = BETWEEN.join(part["text"] for part in content if part["text"])
        message["content"] = content
    # Anthropic and Bedrock reject empty text.
    if content in ("", []) and message.get("role") in {"user", "tool"}:
        message["content"] = EMPTY
    if content == "" and message.get("tool_calls"):
        message["content"] = None
    if message.get("type") == "function_call_output" and message.get("output") in ("", []):
        message["output"] = EMPTY
    return message


def _is_text(part: Any) -> bool:
    """Whether a part of content has a text and nothing else, such as a mark for a cache."""
    return isinstance(part, dict) and part.get("type") in TEXT_TYPES and part.keys() == {"type", "text"}


def _merged(first: Message, second: Message) -> Message:
    one, two = first.get("content"), second.get("content")
    if one is None or two is None:
        content = two if one is None else one
    elif isinstance(one, str) and isinstance(two, str):
        content = f"{one}{BETWEEN}{two}"
    else:
        kinds = [part.get("type") for part in (*_listed(one), *_listed(two)) if isinstance(part, dict)]
        is_item = any(isinstance(kind, str) and kind.startswith("input_") for kind in kinds)
        content = [*_parts(one, is_item=is_item), *_parts(two, is_item=is_item)]
    return {**first, **second, "content": content}


def _listed(content: Any) -> list[Message]:
    return content if isinstance(content, list) else []


def _parts(content: Any, *, is_item: bool) -> list[Message]:
    if isinstance(content, list):
        return content
    return [{"type": "input_text" if is_item else "text", "text": content}]
