"""Which calls of a run are remembered, of every kind of tool, and how a model is given them again."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from agents import Agent, RunItemStreamEvent, ToolCallItem, ToolCallOutputItem
from agents.stream_events import RawResponsesStreamEvent

from chatkit_postgres.assistant.model_input.tool_memory import ToolMemory, calls_to_input, output_text, segments
from chatkit_postgres.store.tool_calls import ToolCall
from tests.support.items import user_message

AGENT = Agent[Any](name="A")
FUNCTION = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'}
HOSTED: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "file search": (
        {"type": "file_search_call", "id": "1", "queries": ["q"], "results": [{"text": "found", "file_id": "f"}]},
        ("file_search", "found"),
    ),
    "code": (
        {"type": "code_interpreter_call", "id": "1", "code": "1 + 1", "outputs": [{"type": "logs", "logs": "2"}]},
        ("code_interpreter", "2"),
    ),
    "a hosted MCP server": (
        {"type": "mcp_call", "id": "1", "name": "look", "server_label": "s", "arguments": "{}", "output": "seen"},
        ("look", "seen"),
    ),
    "web search without results": ({"type": "web_search_call", "id": "1", "action": {"query": "q"}}, None),
    "an image": ({"type": "image_generation_call", "id": "1", "result": "base64"}, None),
}


class Saved:
    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.memory = ToolMemory(self.save)

    async def save(self, calls: Sequence[ToolCall]) -> None:
        self.calls += calls

    def called(self, raw: dict[str, Any]) -> bool:
        item: Any = ToolCallItem(agent=AGENT, raw_item=raw)
        return self.memory.note(RunItemStreamEvent(name="tool_called", item=item))

    def returned(self, call_id: str, output: Any, kind: str = "function_call_output") -> bool:
        raw: Any = {"type": kind, "call_id": call_id, "output": output}
        item = ToolCallOutputItem(agent=AGENT, raw_item=raw, output=output)
        return self.memory.note(RunItemStreamEvent(name="tool_output", item=item))


@pytest.mark.parametrize("kind", HOSTED)
async def test_what_a_providers_tool_returned_is_remembered_as_far_as_it_is_given(kind: str) -> None:
    raw, expected = HOSTED[kind]
    saved = Saved()
    assert saved.called(raw) == (expected is not None)
    await saved.memory.save()
    if expected is None:
        assert saved.calls == []
        return
    (call,) = saved.calls
    assert (call.name, call.is_function) == (expected[0], False)
    assert expected[1] in call.output
    # A note, because other providers know no such call.
    (note,) = calls_to_input([call])
    assert note.get("role") == "user"
    assert expected[1] in json.dumps(note).replace("\\", "")


async def test_a_call_without_an_output_is_not_saved() -> None:
    saved = Saved()
    assert not saved.called(FUNCTION)
    assert not saved.called(FUNCTION | {"call_id": "c2"})
    assert not saved.returned("c1", "one")
    event: Any = RawResponsesStreamEvent(data=None)  # type: ignore[arg-type] # any event of a response
    assert saved.memory.note(event)
    await saved.memory.save()
    assert [(call.name, call.output) for call in saved.calls] == [("look", "one")]
    assert not saved.memory.note(event)
    assert saved.returned("c2", "two")
    await saved.memory.save()
    assert not saved.returned("unknown", "three")


async def test_a_shell_is_remembered_as_a_note() -> None:
    saved = Saved()
    saved.called({"type": "shell_call", "call_id": "s1", "action": {"commands": ["ls"]}})
    assert saved.returned("s1", [{"stdout": "a.txt"}], "shell_call_output")
    await saved.memory.save()
    assert [(call.name, call.is_function) for call in saved.calls] == [("shell", False)]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ([{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:..."}], "a\n[An image]"),
        ({"rows": [1]}, '{"rows": [1]}'),
        ({"type": "input_file", "file_data": "..."}, "[A file]"),
        (3, "3"),
    ],
)
def test_an_output_is_text(output: object, text: str) -> None:
    assert output_text(output) == text


def test_calls_stand_between_the_items_that_they_stood_between() -> None:
    items = [user_message("t", name, name) for name in ("a", "b", "c")]
    calls = {name: [ToolCall(str(name), "{}", "")] for name in ("b", None, "gone")}
    found = [([call.name for call in between], [item.id for item in part]) for between, part in segments(items, calls)]
    assert found == [([], ["a"]), (["b"], ["b", "c"]), (["None"], [])]
    assert [list(part) for _, part in segments(items, {})] == [items]
