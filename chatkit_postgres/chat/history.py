"""Loads the part of a thread that a model sees."""

from collections.abc import Sequence
from itertools import dropwhile
from typing import Any

from chatkit.types import ClientToolCallItem, GeneratedImageItem, ThreadItem, UserMessageItem, WidgetItem

from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.history import HistoryLimits
from chatkit_postgres.store.rows import dump_json
from chatkit_postgres.text import MAX_CUT_MARK, common_length, cut_middle

BYTES_PER_TOKEN = 4
"""An estimate for stored English; other scripts have more bytes in a character, and fewer characters in a token."""
WEIGHT_OF_A_LINE = 200
MIN_OUTPUT = 200
"""Characters of a tool's output that are never cut."""


def limits_of(tokens: int, tool_memory_tokens: int = 8000) -> HistoryLimits:
    """Limits for token budgets, estimated."""
    return HistoryLimits(bytes=tokens * BYTES_PER_TOKEN, call_bytes=tool_memory_tokens * BYTES_PER_TOKEN)


async def recent_items(
    store: DatabaseStore, thread_id: str, context: RequestContext, limits: HistoryLimits
) -> Sequence[ThreadItem]:
    """The newest turns within the limits, oldest first, in one statement; the newest turn in any case. Outputs of tools
    are cut in the middle until everything fits, but to no less than 200 characters.

    If older turns were left out, the history begins with a user's message, if it has one, so that no answer appears
    without its question. A client tool's call and its output are one item. Fills the context's ``history_notes``.
    """
    found = await store.history.load_newest(thread_id, limits, context)
    notes = context.history_notes
    notes.cut_short.update(found.cut_short)
    notes.without_images |= found.without_images
    notes.last_agent = found.last_agent
    notes.calls.update(found.calls)
    items: Sequence[ThreadItem] = found.items
    if found.is_cut:
        items = list(dropwhile(lambda item: not isinstance(item, UserMessageItem), items)) or items
    if (answered := notes.answered) is not None:
        items = [*(item for item in items if item.id != answered.id), answered]
    return _with_shorter_outputs(items, limits)


def _with_shorter_outputs(items: Sequence[ThreadItem], limits: HistoryLimits) -> Sequence[ThreadItem]:
    """The same items, the longest outputs of tools cut to one length with which all of them fit."""
    outputs = {item.id: _text_of(item.output) for item in items if isinstance(item, ClientToolCallItem)}
    if not outputs:
        return items
    lengths = {item_id: len(output.encode()) for item_id, output in outputs.items()}
    room = limits.bytes - sum(_weight_without_output(item) for item in items)
    length = common_length(lengths.values(), room)
    # From here on in characters: a script with three bytes in a character gets a third as many.
    widest = max((size / max(len(outputs[item_id]), 1) for item_id, size in lengths.items()), default=1.0)
    length = min(max(int(length / max(widest, 1.0)), MIN_OUTPUT), limits.output_characters)
    longest = length + MAX_CUT_MARK
    return [
        item.model_copy(update={"output": cut_middle(outputs[item.id], length)})
        if isinstance(item, ClientToolCallItem) and len(outputs[item.id]) > longest
        else item
        for item in items
    ]


def _text_of(output: Any) -> str:
    return output if isinstance(output, str) else dump_json(output)


def _weight_without_output(item: ThreadItem) -> int:
    """In bytes. As in the statement, an image, and a widget with a text of its own, count as one line."""
    match item:
        case GeneratedImageItem():
            return WEIGHT_OF_A_LINE
        case WidgetItem(copy_text=str(text)) if text:
            return WEIGHT_OF_A_LINE + len(text.encode())
        case ClientToolCallItem():
            return len(item.model_copy(update={"output": None}).model_dump_json().encode())
        case _:
            return len(item.model_dump_json().encode())
