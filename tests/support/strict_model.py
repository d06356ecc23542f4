"""The rules of the model server's strict mode: requests that real APIs are known to refuse.

``Mistral`` and the chat templates of Llama 2, Gemma and others want roles that alternate; OpenAI wants each call to
have its output, and ids that are its own and have at most 64 characters; DeepSeek, Groq and older servers want text as
a string. What depends on a model is told by its name: ``blind`` takes no pictures, ``window`` so many characters.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

MAX_CALL_ID = 64
FORBIDDEN = "UNSPEAKABLE"
"""The content filter refuses requests that contain this word."""

Refusal = dict[str, Any]


def refusal_of(api: str, body: dict[str, Any]) -> Refusal | None:
    """The error with which the request is refused, or ``None``."""
    items = body["messages"] if api == "chat_completions" else body["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    whole = json.dumps(items, ensure_ascii=False)
    model = str(body.get("model", ""))
    if any(form := [*_text(whole), *_form(api, items)]):
        return _error(form[0], None)
    if "blind" in model and re.search(r'"(input_image|image_url)"', whole):
        return _error("This model does not support image input.", None)
    if (window := re.search(r"window-(\d+)", model)) and len(whole) > int(window[1]):
        sent = f"This model's maximum context length is {window[1]} characters; you sent {len(whole)}."
        return _error(sent, "context_length_exceeded")
    if FORBIDDEN in whole:
        return _error("The response was filtered due to the prompt triggering a policy.", "content_filter")
    return None


def _error(message: str, code: str | None) -> Refusal:
    return {"message": message, "type": "invalid_request_error", "code": code, "param": None}


def _text(whole: str) -> Iterator[str]:
    try:
        whole.encode()
    except UnicodeEncodeError:
        yield "half of a surrogate pair"
    if "\\u0000" in whole:
        yield "NUL"


def _form(api: str, items: list[dict[str, Any]]) -> Iterator[str]:
    if not items:
        yield "the list is empty"
    yield from _contents(items)
    yield from _chat(items) if api == "chat_completions" else _responses(items)


def _contents(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        content = item.get("content")
        if isinstance(content, list) and any(part.get("type") == "output_text" for part in content):
            # An item that the responses API itself has sent.
            continue
        if content == "":
            yield f"{item['role']}: content is empty"
        if isinstance(content, list) and all("text" in part for part in content):
            yield f"{item['role']}: content must be a string"


def _chat(messages: list[dict[str, Any]]) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    spoken = [role for role in roles if role != "system"]
    if "system" in roles[1:]:
        yield "system stands first, and once"
    if spoken[:1] != ["user"]:
        yield f"the user speaks first, not {spoken[:1]}"
    if spoken[-1] not in {"user", "tool"}:
        yield f"the last role is user or tool, not {spoken[-1]}"
    for first, second in pairwise(spoken):
        if (first, second) not in {("user", "assistant"), ("assistant", "user")} and "tool" not in {first, second}:
            yield f"roles must alternate: {first}, {second}"
        if (first, second) == ("tool", "user"):
            yield "unexpected role 'user' after role 'tool'"
    yield from _pairs(messages)


def _pairs(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Tool calls of an assistant message must be followed by their outputs, in any order."""
    seen: list[str] = []
    waiting: Counter[str] = Counter()
    for message in messages:
        if message["role"] == "tool":
            if not waiting[message["tool_call_id"]]:
                yield "a tool's output without its call"
            waiting[message["tool_call_id"]] -= 1
            continue
        if waiting.total():
            yield "a call without its output"
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        seen += ids
        waiting = Counter(ids)
    if waiting.total():
        yield "a call without its output"
    yield from _ids(seen)


def _responses(items: list[dict[str, Any]]) -> Iterator[str]:
    for first, second in pairwise(items):
        if first.get("role") == second.get("role") == "user":
            yield "two messages of the user in a row"
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    if sorted(calls) != sorted(outputs):
        yield f"calls and outputs are no pairs: {calls}, {outputs}"
    yield from _ids(calls)


def _ids(ids: list[str]) -> Iterator[str]:
    if len(set(ids)) != len(ids):
        yield "a call's id stands for two calls"
    if any(not 0 < len(call_id) <= MAX_CALL_ID for call_id in ids):
        yield "a call's id has 1 to 64 characters"
