"""Generates the title of a new thread while its first answer is streamed."""

import asyncio

from chatkit.types import ProgressUpdateEvent, ThreadMetadata, UserMessageItem

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.text import clean_text

MAX_SECONDS = 10
MAX_TITLE = 500
TITLE_READY = ProgressUpdateEvent(text="")
"""Reminds the pipeline of a title that became ready while nothing else is sent; never sent itself."""

logger = get_logger(__name__)


class TitleTask:
    """A background task that asks the assistant for a title. An answer neither waits for its title nor fails with it;
    at the end of the answer the title gets a few seconds more."""

    def __init__(
        self,
        thread: ThreadMetadata,
        assistant: Assistant,
        message: UserMessageItem,
        context: LiveContext,
    ) -> None:
        self._thread = thread
        self._task = asyncio.create_task(_title(assistant, message, context))
        self._task.add_done_callback(lambda task: _remind(task, context))

    def apply(self) -> None:
        """Set the title on the thread if it is ready and the thread has none."""
        if self._task.done() and not self._task.cancelled() and self._thread.title is None:
            self._thread.title = self._task.result()

    async def wait(self) -> None:
        await asyncio.wait({self._task}, timeout=MAX_SECONDS)
        self.apply()

    def cancel(self) -> None:
        self._task.cancel()


def _remind(task: asyncio.Task[str | None], context: LiveContext) -> None:
    if not task.cancelled() and task.result() is not None:
        context.queue.remind(TITLE_READY)


async def _title(assistant: Assistant, message: UserMessageItem, context: LiveContext) -> str | None:
    try:
        return _presentable(await assistant.title(message, context))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a thread without a title is still a thread
        logger.warning("no_title", **failure(error))
        return None


def _presentable(title: object) -> str | None:
    """One line of at most MAX_TITLE characters, from whatever type an assistant returned."""
    if not isinstance(title, str):
        if title is not None:
            logger.warning("no_title", returned=type(title).__name__, cure="return a str, or None")
        return None
    return " ".join(clean_text(title).split())[:MAX_TITLE] or None
