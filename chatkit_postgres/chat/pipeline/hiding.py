"""Drops events with hidden context, which is for the model and never for a client."""

from collections.abc import Sequence

from chatkit.types import ThreadStreamEvent

from chatkit_postgres.chat.pipeline.stage import Stage
from chatkit_postgres.chat.wire import is_hidden


class HideContext(Stage):
    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        return () if is_hidden(getattr(event, "item", None)) else (event,)
