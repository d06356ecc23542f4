"""Keeps the calls of tools with their outputs, beside the items of a thread."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from chatkit_postgres.db import Database
from chatkit_postgres.errors import NotFound
from chatkit_postgres.store import rows
from chatkit_postgres.store.caller import StoreContext, owner_of, required_session
from chatkit_postgres.store.ids import session_uuid
from chatkit_postgres.store.refusals import lost_fence
from chatkit_postgres.store.sql.tool_calls import ADD_TOOL_CALLS
from chatkit_postgres.text import clean_text, cut_middle

MAX_ARGUMENTS = 8_000
MAX_OUTPUT = 32_000
"""Characters; a longer output is cut in its middle."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, with its output."""

    name: str
    arguments: str
    """A JSON object, once stored."""
    output: str
    is_function: bool = True
    """Whether the tool is a function, whose call every model API knows."""
    id: str = ""
    """Unique in its thread, once stored."""


class ToolCallRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, thread_id: str, calls: Sequence[ToolCall], context: StoreContext) -> None:
        """Append calls to the thread, after the items that it has. Raises Superseded if a newer turn owns the thread,
        NotFound if it is deleted."""
        session = required_session(context)
        # Calls of an answer that is not public yet: it may be refused, or never replace the one that it retries.
        is_draft = session.retry is not None or session.awaits_verdict
        added = await self._database.run(
            owner_of(context),
            ADD_TOOL_CALLS,
            session=session_uuid(thread_id),
            turn=session.turn_id,
            draft=is_draft,
            calls=rows.storable_json(rows.dump_json([_document(number, call) for number, call in enumerate(calls)])),
        )
        if not added:
            raise NotFound
        if not added[0]["accepted"]:
            raise lost_fence(session)
        session.has_hidden_work = session.has_hidden_work or is_draft


def _document(number: int, call: ToolCall) -> dict[str, object]:
    return {
        "sequence": number,
        "is_function": call.is_function,
        "name": clean_text(call.name)[:200],
        "arguments": _bounded_arguments(clean_text(call.arguments)),
        "output": cut_middle(clean_text(call.output), MAX_OUTPUT),
    }


def _bounded_arguments(arguments: str) -> str:
    """A JSON object, because some providers parse it; what is none, or too long, becomes the text in one."""
    try:
        is_object = isinstance(json.loads(arguments or "{}"), dict)
    except ValueError:
        is_object = False
    if is_object and len(arguments) <= MAX_ARGUMENTS:
        return arguments or "{}"
    return json.dumps({"text": cut_middle(arguments, MAX_ARGUMENTS)}, ensure_ascii=False)
