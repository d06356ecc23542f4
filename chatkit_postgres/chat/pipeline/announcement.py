"""Saves and announces a thread that an assistant has changed."""

from collections.abc import Sequence

from chatkit.types import ThreadMetadata, ThreadStreamEvent, ThreadUpdatedEvent

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.chat.titles import TITLE_READY, TitleTask
from chatkit_postgres.chat.wire import thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore


class AnnounceThread(Stage):
    def __init__(
        self, store: DatabaseStore, thread: ThreadMetadata, context: RequestContext, title: TitleTask | None = None
    ) -> None:
        self._store = store
        self._thread = thread
        self._context = context
        self._title = title
        self._announced = thread.model_copy(deep=True)

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        return () if event is TITLE_READY else (event,)

    async def sent(self, events: Sequence[ThreadStreamEvent]) -> Sequence[ThreadStreamEvent]:  # noqa: ARG002
        """Not before an event was sent: a committed item is sent even if saving the thread fails."""
        return await self.changes()

    async def finish(self) -> Sequence[ThreadStreamEvent]:
        if self._title is not None:
            await self._title.wait()
        return await self.changes()

    async def changes(self) -> Sequence[ThreadStreamEvent]:
        """Save the thread and return its announcement; nothing if it has not changed."""
        if self._title is not None:
            self._title.apply()
        if self._thread == self._announced:
            return ()
        await self._store.save_thread(self._thread, self._context)
        # Inside a turn, saving updates the object from the row.
        self._announced = self._thread.model_copy(deep=True)
        return (ThreadUpdatedEvent(thread=thread_response(self._thread)),)
