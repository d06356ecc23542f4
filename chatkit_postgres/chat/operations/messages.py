"""Makes the item of a user's message."""

from datetime import datetime

from chatkit.types import ThreadMetadata, UserMessageInput, UserMessageItem

from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore


async def user_message(
    store: DatabaseStore, sent: UserMessageInput, thread: ThreadMetadata, context: RequestContext
) -> UserMessageItem:
    attachments = [await store.load_attachment(attachment_id, context) for attachment_id in sent.attachments]
    return UserMessageItem(
        id=store.generate_item_id("message", thread, context),
        thread_id=thread.id,
        created_at=datetime.now(),  # noqa: DTZ005 - as the SDK's own
        content=sent.content,
        attachments=[attachment.model_copy(update={"thread_id": thread.id}) for attachment in attachments],
        quoted_text=sent.quoted_text,
        inference_options=sent.inference_options,
    )
