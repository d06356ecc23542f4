"""The way of an event from the assistant to the client."""

from collections.abc import Container

from chatkit.types import ThreadMetadata

from chatkit_postgres.chat.pipeline.announcement import AnnounceThread
from chatkit_postgres.chat.pipeline.answer_limit import LimitAnswer
from chatkit_postgres.chat.pipeline.generated_images import StoreImages
from chatkit_postgres.chat.pipeline.hiding import HideContext
from chatkit_postgres.chat.pipeline.item_ids import MapItemIds
from chatkit_postgres.chat.pipeline.persistence import PersistItems
from chatkit_postgres.chat.pipeline.stage import Pipeline
from chatkit_postgres.chat.turns.draft import Draft
from chatkit_postgres.context import RequestContext
from chatkit_postgres.ports import Files
from chatkit_postgres.store import DatabaseStore

__all__ = ["AnnounceThread", "answer_pipeline"]


def answer_pipeline(
    store: DatabaseStore,
    files: Files,
    thread: ThreadMetadata,
    context: RequestContext,
    *,
    draft: Draft,
    announce: AnnounceThread,
    max_characters: int,
    free_ids: Container[str],
) -> Pipeline:
    """The stages of one answer. An item is committed when it leaves PersistItems, and sent after that; a changed thread
    is announced after the event."""
    return Pipeline(
        [
            MapItemIds(store, thread, context),
            StoreImages(files),
            LimitAnswer(max_characters, free_ids),
            PersistItems(store, thread, context, draft),
            announce,
            HideContext(),
        ]
    )
