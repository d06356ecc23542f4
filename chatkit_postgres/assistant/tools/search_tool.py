"""A tool with which an agent finds what the user said and read in other conversations."""

import html
import re
from typing import Any

from agents import RunContextWrapper, function_tool
from chatkit.agents import AgentContext
from pydantic_core import to_json

from chatkit_postgres.assistant.answer_store import store_of
from chatkit_postgres.errors import Unprocessable

MAX_FOUND = 10


@function_tool
async def search_conversations(  # noqa: D417 - the docstring is the model's, who passes no context
    context: RunContextWrapper[AgentContext[Any]], query: str
) -> str:
    """Search the user's earlier conversations with you, the newest first.

    Args:
        query: Words that must all be in a message, in any order; "quoted words" must follow each other; -word must not
            be in it.

    """
    running = context.context
    try:
        # The model has this conversation.
        hits = await store_of(running).search.search(
            query, running.request_context, limit=MAX_FOUND, except_thread=running.thread.id
        )
    except Unprocessable as error:
        return error.message
    found = [
        {"date": hit.created_at.date().isoformat(), "conversation": hit.title, "text": _plain(hit.snippet)}
        for hit in hits.data
    ]
    return to_json(found).decode() if found else "Nothing was found."


def _plain(snippet: str) -> str:
    return html.unescape(re.sub("</?mark>", "", snippet))
