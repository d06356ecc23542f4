"""What an assistant gets to see of a thread."""

from collections.abc import Sequence
from itertools import dropwhile
from typing import Any

from chatkit.types import ClientToolCallItem, ThreadItem, UserMessageItem

from app.context import RequestContext
from app.store import DatabaseStore
from app.store.history import HistoryLimits
from app.store.rows import dump_json
from app.text import LONGEST_CUT_MARK, cut_middle

BYTES_PER_TOKEN = 4
"""About what it is for English as stored; other scripts have more bytes in a character, and fewer characters in a
token."""
SHORTEST_OUTPUT = 200
"""Characters that are left of a tool's output in any case."""


def limits_of(tokens: int) -> HistoryLimits:
    """For so many tokens, estimated."""
    return HistoryLimits(bytes=tokens * BYTES_PER_TOKEN)


async def recent_items(
    store: DatabaseStore, thread_id: str, context: RequestContext, limits: HistoryLimits
) -> Sequence[ThreadItem]:
    """The newest turns that fit, oldest first, in one statement; the newest in any case, where it begins with a message
    of the user: the outputs of its tools are then cut in the middle, as far as needed.

    A thread that was cut begins with a user's message, so that no answer stands without its question. A tool call and
    its output are one item.
    """
    found = await store.load_newest_items(thread_id, limits, context)
    if (turn := context.turn) is not None:
        turn.cut_short.update(found.cut_short)
        turn.without_pictures |= found.without_pictures
    items: Sequence[ThreadItem] = found.items
    if found.is_cut:
        items = list(dropwhile(lambda item: not isinstance(item, UserMessageItem), items)) or items
    if turn is not None and turn.answered is not None:
        # It may have been asked long ago, and answered now.
        items = [*(item for item in items if item.id != turn.answered.id), turn.answered]
    return _with_shorter_outputs(items, limits)


def _with_shorter_outputs(items: Sequence[ThreadItem], limits: HistoryLimits) -> Sequence[ThreadItem]:
    """The same items, the longest outputs of tools cut to one length with which all of them fit."""
    outputs = {item.id: _text_of(item.output) for item in items if isinstance(item, ClientToolCallItem)}
    if not outputs:
        return items
    room = limits.bytes - sum(len(item.model_dump_json()) for item in items) + sum(map(len, outputs.values()))
    level = max(_level(sorted(map(len, outputs.values())), room), SHORTEST_OUTPUT)
    length = min(level, limits.output_characters)
    longest = length + LONGEST_CUT_MARK
    return [
        item.model_copy(update={"output": cut_middle(outputs[item.id], length)})
        if isinstance(item, ClientToolCallItem) and len(outputs[item.id]) > longest
        else item
        for item in items
    ]


def _text_of(output: Any) -> str:
    return output if isinstance(output, str) else dump_json(output)


def _level(lengths: Sequence[int], room: int) -> int:
    """The length to which the longer ones are cut, so that their sum fits into the room."""
    for number, length in enumerate(lengths):
        share = room // (len(lengths) - number)
        if length > share:
            return share
        room -= length
    return lengths[-1] if lengths else 0
