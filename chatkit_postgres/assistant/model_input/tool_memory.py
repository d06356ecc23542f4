"""Saves the calls of a run's tools with their outputs, and gives them to the model again with the history."""

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agents import RunItemStreamEvent, StreamEvent, ToolCallItem, ToolCallOutputItem, TResponseInputItem
from chatkit.types import ThreadItem
from openai.types.responses import ResponseFunctionToolCallParam
from openai.types.responses.response_input_param import FunctionCallOutput
from pydantic import BaseModel

from chatkit_postgres.assistant.model_input.call_ids import call_id_of
from chatkit_postgres.assistant.model_input.input_shape import note
from chatkit_postgres.store.tool_calls import ToolCall

SaveCalls = Callable[[Sequence[ToolCall]], Awaitable[None]]
Calls = Mapping[str | None, Sequence[ToolCall]]
"""By the id of the item that follows them; None: they follow the last item."""

OpenCalls = Mapping[str, tuple[str, str, bool]]
"""Calls without an output so far, by call id: name, arguments, and whether the tool is a function."""

_LOCAL = {"shell_call", "local_shell_call", "apply_patch_call", "custom_tool_call"}
"""Tools that this server runs, whose calls are no functions."""
_PLACEHOLDERS = {"input_image": "[An image]", "image": "[An image]", "input_file": "[A file]"}
_INPUTS = ("arguments", "queries", "query", "code", "action", "operation", "input")
_OUTPUTS = ("output", "results", "outputs", "error")
"""Members of a call that a provider ran."""


class ToolMemory:
    """Collects the calls of a run, each with its output, and saves those of one response of the model at once. A call
    without an output is not saved."""

    def __init__(self, save: SaveCalls | None, open_calls: OpenCalls = MappingProxyType({})) -> None:
        """Without ``save``, nothing is collected. ``open_calls`` are those of the turn that this one continues."""
        self._save = save
        self._open = dict(open_calls)
        self._finished: list[ToolCall] = []

    @property
    def open_calls(self) -> OpenCalls:
        return self._open

    def note(self, event: StreamEvent) -> bool:
        """Called with each event of the run, after all items before it were saved. Returns whether to save now: all
        calls have their outputs, or the next response begins."""
        if self._save is None:
            return False
        if not isinstance(event, RunItemStreamEvent):
            return bool(self._finished)
        match event.item:
            case ToolCallItem(raw_item=raw):
                self._add_call(_members(raw))
            case ToolCallOutputItem() as item:
                self._add_output(item)
            case _:
                pass
        return bool(self._finished) and not self._open

    async def save(self, *, without: Collection[str] = ()) -> None:
        """``without``: the names of client tools, whose calls and outputs are items of the thread."""
        finished, self._finished = [call for call in self._finished if call.name not in without], []
        if finished and self._save is not None:
            await self._save(finished)

    def _add_call(self, raw: Mapping[str, Any]) -> None:
        kind, call_id = str(raw.get("type")), str(raw.get("call_id") or raw.get("id") or "")
        if kind == "function_call":
            self._open[call_id] = (str(raw.get("name")), str(raw.get("arguments") or "{}"), True)
        elif kind in _LOCAL:
            self._open[call_id] = (str(raw.get("name") or kind.removesuffix("_call")), _first(raw, _INPUTS), False)
        elif kind != "image_generation_call" and (output := _first(raw, _OUTPUTS)):
            name = str(raw.get("name") or kind.removesuffix("_call"))
            self._finished.append(ToolCall(name, _first(raw, _INPUTS), output, is_function=False))

    def _add_output(self, item: ToolCallOutputItem) -> None:
        call = self._open.pop(item.call_id or "", None)
        if call is not None:
            name, arguments, is_function = call
            self._finished.append(
                ToolCall(name, arguments, output_text(_members(item.raw_item).get("output")), is_function)
            )


def output_text(output: object) -> str:
    """The text of a tool's output; images and files are only named."""
    if isinstance(output, list | tuple):
        return "\n".join(output_text(part) for part in output)
    if isinstance(output, BaseModel):
        return output_text(output.model_dump(mode="json", exclude_none=True))
    if isinstance(output, Mapping) and output.get("type") in _PLACEHOLDERS:
        return _PLACEHOLDERS[output["type"]]
    if isinstance(output, Mapping) and isinstance(output.get("text"), str) and "type" in output:
        return str(output["text"])
    if output is None or isinstance(output, str):
        return output or ""
    return json.dumps(output, ensure_ascii=False, default=str)


def calls_to_input(calls: Sequence[ToolCall]) -> list[TResponseInputItem]:
    """Calls and outputs in a form that both model APIs accept. What a provider's own tool said is a note, because
    another provider knows no such call."""
    functions = [call for call in calls if call.is_function]
    called = [
        ResponseFunctionToolCallParam(
            type="function_call", call_id=call_id_of(call.id), name=call.name, arguments=call.arguments
        )
        for call in functions
    ]
    outputs = [
        FunctionCallOutput(type="function_call_output", call_id=call_id_of(call.id), output=call.output)
        for call in functions
    ]
    notes: list[TResponseInputItem] = [
        note(f"The assistant has used {call.name!r} with {call.arguments}. It returned: {call.output}")
        for call in calls
        if not call.is_function
    ]
    return [*called, *outputs, *notes]


def segments(items: Sequence[ThreadItem], calls: Calls) -> Iterator[tuple[Sequence[ToolCall], Sequence[ThreadItem]]]:
    """Split the items where calls stand between them. Yields calls, and the items after them up to the next calls."""
    begin, before = 0, ()  # type: tuple[int, Sequence[ToolCall]]
    for number, item in enumerate(items):
        if item.id in calls:
            if before or number > begin:
                yield before, items[begin:number]
            begin, before = number, calls[item.id]
    yield before, items[begin:]
    if None in calls:
        yield calls[None], ()


def _members(raw: object) -> Mapping[str, Any]:
    if isinstance(raw, BaseModel):
        return raw.model_dump(mode="json", exclude_none=True)
    return raw if isinstance(raw, Mapping) else {}


def _first(raw: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these members that is there, as text."""
    return next((output_text(raw[name]) for name in names if raw.get(name)), "")
