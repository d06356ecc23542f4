"""Event streams of model servers, and faulty variants of each, for tests that compare two clients."""

import copy
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

Event = dict[str, Any]

RESPONSE: Event = {"id": "resp_1", "object": "response", "created_at": 1.0, "model": "m", "output": [], "tools": []}
RESPONSE |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
USAGE: Event = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
USAGE |= {"input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0}}
USAGE |= {"output_tokens_details": {"reasoning_tokens": 1}}
CHAT_USAGE: Event = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
CHAT_USAGE |= {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}


def _responses(*middle: Event, output: Sequence[Event], end: str = "response.completed", **last: Any) -> list[Event]:
    status = end.removeprefix("response.")
    final = RESPONSE | {"output": list(output), "status": status, "usage": USAGE} | last
    events = [{"type": "response.created", "response": RESPONSE}, *middle, {"type": end, "response": final}]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def _message(*parts: Event) -> list[Event]:
    """The events of a message: added, two deltas for each part, done."""
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": list(parts)}
    events: list[Event] = [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": whole | {"content": [], "status": "in_progress"},
        }
    ]
    for index, part in enumerate(parts):
        at = {"item_id": "msg_1", "output_index": 0, "content_index": index}
        field = "text" if part["type"] == "output_text" else "refusal"
        kind = f"response.{part['type']}"
        more: Event = {"logprobs": []} if field == "text" else {}
        events.append({"type": "response.content_part.added", "part": part | {field: ""}, **at})
        events += [
            {"type": f"{kind}.delta", "delta": piece, **more, **at} for piece in (part[field][:3], part[field][3:])
        ]
        events.append({"type": f"{kind}.done", field: part[field], **more, **at})
        events.append({"type": "response.content_part.done", "part": part, **at})
    return [*events, {"type": "response.output_item.done", "output_index": 0, "item": whole}]


TEXT = {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}
REFUSAL = {"type": "refusal", "refusal": "I would rather not"}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'}
THOUGHT: Event = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Let me see"}]}


def _call() -> list[Event]:
    at = {"item_id": "fc_1", "output_index": 0}
    begun = CALL | {"arguments": "", "status": "in_progress"}
    pieces = [{"type": "response.function_call_arguments.delta", "delta": d, **at} for d in ('{"a"', ": 1}")]
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        *pieces,
        {"type": "response.function_call_arguments.done", "arguments": CALL["arguments"], "name": "add", **at},
        {"type": "response.output_item.done", "output_index": 0, "item": CALL | {"status": "completed"}},
    ]


def _thought() -> list[Event]:
    at = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": THOUGHT | {"summary": []}},
        {"type": "response.reasoning_summary_text.delta", "delta": "Let me see", **at},
        {"type": "response.reasoning_summary_text.done", "text": "Let me see", **at},
        {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
    ]


def _done(*parts: Event) -> Event:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": list(parts)}


RESPONSES: dict[str, list[Event]] = {
    "text": _responses(*_message(TEXT), output=[_done(TEXT)]),
    "thought and text": _responses(*_thought(), *_message(TEXT), output=[THOUGHT, _done(TEXT)]),
    "refusal": _responses(*_message(REFUSAL), output=[_done(REFUSAL)]),
    "call": _responses(*_call(), output=[CALL | {"status": "completed"}]),
    "cut off": _responses(
        *_message(TEXT),
        output=[_done(TEXT)],
        end="response.incomplete",
        incomplete_details={"reason": "max_output_tokens"},
    ),
    "failed": _responses(
        *_message(TEXT), output=[], end="response.failed", error={"code": "server_error", "message": "out of memory"}
    ),
}


def _chunk(delta: Event | None, finish: str | None = None, **more: Any) -> Event:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices} | more


FIRST, COUNTED = _chunk({"role": "assistant", "content": ""}), _chunk(None, usage=CHAT_USAGE)


def _tool(**call: Any) -> Event:
    return _chunk({"tool_calls": [{"index": 0, **call}]})


CHUNKS: dict[str, list[Event]] = {
    "text": [FIRST, _chunk({"content": "Hel"}), _chunk({"content": "lo, world"}), _chunk({}, "stop"), COUNTED],
    "thought and text": [
        FIRST,
        _chunk({"reasoning_content": "Let me see"}),
        _chunk({"content": "Hello"}),
        _chunk({}, "stop"),
        COUNTED,
    ],
    "refusal": [FIRST, _chunk({"refusal": "I would rather not"}), _chunk({}, "stop"), COUNTED],
    "call": [
        FIRST,
        _tool(id="call_1", type="function", function={"name": "add", "arguments": '{"a"'}),
        _tool(function={"arguments": ": 1}"}),
        _chunk({}, "tool_calls"),
        COUNTED,
    ],
    "cut off": [FIRST, _chunk({"content": "Hello"}), _chunk({}, "length"), COUNTED],
}

STREAMS = {("responses", name): events for name, events in RESPONSES.items()} | {
    ("chat_completions", name): events for name, events in CHUNKS.items()
}


@dataclass(frozen=True)
class Variant:
    """One stream with one thing changed."""

    api: str
    name: str
    """Describes the change."""
    events: list[Event]


OTHERS: tuple[Any, ...] = (None, 7, "unheard_of", [], {}, True, 1.5, 10**12)
"""Replacements for a value: null, and a value of each JSON type. For an enum, the string is an unknown value."""


def variants() -> Iterator[Variant]:
    """Yields each stream with one field of one event removed, of another type, or with an unknown field beside it."""
    seen: set[tuple[str, str, str]] = set()
    for (api, name), events in STREAMS.items():
        for number, event in enumerate(events):
            for path in _paths(event):
                place = ".".join(map(str, path))
                inner = event.get("item") or event.get("part") or {}
                kind = " ".join(filter(None, (event.get("type"), inner.get("type")))) or f"chunk {number} of {name}"
                if (api, kind, place) in seen:
                    continue
                seen.add((api, kind, place))
                for change in ("removed", *OTHERS, "extra"):
                    changed = _changed(event, path, change)
                    if changed != event:
                        copied = [*events[:number], changed, *events[number + 1 :]]
                        yield Variant(api, f"{api} {name}: {kind} {place} {change!r}", copied)


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*before, key)
        yield from _paths(inner, (*before, key))


def _changed(event: Event, path: tuple[Any, ...], change: Any) -> Event:
    copied = copy.deepcopy(event)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner[key]
    if change == "removed":
        del inner[path[-1]]
    elif change == "extra":
        if isinstance(inner, dict):
            inner["a_field_of_next_year"] = {"any": ["thing"]}
    else:
        inner[path[-1]] = change
    return copied


def frames(events: Sequence[Event], *, named: bool = False, ending: str = "\n", done: bool = True) -> bytes:
    """Encodes events as an event stream, with or without ``event:`` lines."""
    lines: list[str] = []
    for event in events:
        if named and event.get("type"):
            lines.append(f"event: {event['type']}")
        lines += [f"data: {json.dumps(event)}", ""]
    if done:
        lines += ["data: [DONE]", ""]
    return "".join(line + ending for line in lines).encode()


def pieces(data: bytes, seed: int | None) -> list[bytes]:
    """The data in one piece, or split at random positions."""
    if seed is None:
        return [data]
    places = random.Random(seed)
    cuts = sorted({places.randrange(1, len(data)) for _ in range(len(data) // 40)})
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class Served(httpx2.AsyncBaseTransport):
    """An HTTP transport that responds to every request with the same event stream."""

    def __init__(self, *body: bytes) -> None:
        self.body: Sequence[bytes] = body
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Stream(self.body), request=request)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, body: Sequence[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            yield piece
