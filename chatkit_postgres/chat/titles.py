"""A new thread gets its title while its first answer is written."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from chatkit.agents import AgentContext
from chatkit.types import ThreadMetadata, UserMessageItem

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.text import clean_text

MAX_SECONDS = 10
MAX_TITLE = 500

logger = get_logger(__name__)


@asynccontextmanager
async def generate_title_while_streaming(
    thread: ThreadMetadata,
    assistant: Assistant,
    message: UserMessageItem | None,
    context: AgentContext[RequestContext],
) -> AsyncGenerator[Callable[[], None], None]:
    """Generate the title in the background; call the yielded function to apply it once it is ready.

    The SDK saves and announces a thread that has changed after each event. An answer neither waits for its title nor
    fails with it; at the end it gets a few seconds.
    """
    if message is None or thread.title is not None:
        yield lambda: None
        return
    asked = asyncio.create_task(_asked(assistant, message, context))

    def look() -> None:
        if asked.done() and not asked.cancelled() and thread.title is None:
            thread.title = asked.result()

    try:
        # One turn of the loop, so that a title that needs no waiting is there before the answer.
        await asyncio.sleep(0)
        look()
        yield look
        await asyncio.wait({asked}, timeout=MAX_SECONDS)
        look()
    finally:
        asked.cancel()


async def _asked(assistant: Assistant, message: UserMessageItem, context: AgentContext[RequestContext]) -> str | None:
    try:
        return _presentable(await assistant.title(message, context))
    except Exception as error:  # noqa: BLE001 - a thread without a title is still a thread
        logger.warning("no_title", **failure(error))
        return None


def _presentable(title: object) -> str | None:
    """Whatever a model made of it."""
    if not isinstance(title, str):
        return None
    return " ".join(clean_text(title).split())[:MAX_TITLE] or None
