"""What one user has: threads, items that wait for answers, attachments, and things that were deleted."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chatkit.types import (
    ClientToolCallItem,
    FileAttachment,
    HiddenContextItem,
    StructuredInputFreeform,
    StructuredInputItem,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot

from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.ids import new_id
from tests.support.assistants import BUTTON
from tests.support.items import NAIVE, assistant_message, thread, user_message

SENTENCE = "The launch code is {mark}."


@dataclass
class World:
    """Ids of one user's things. ``mark`` is in all their texts."""

    user: str
    mark: str
    thread: str = field(default_factory=lambda: new_id("thread"))
    message: str = field(default_factory=lambda: new_id("message"))
    answer: str = field(default_factory=lambda: new_id("message"))
    questions: str = field(default_factory=lambda: new_id("message"))
    widget: str = field(default_factory=lambda: new_id("message"))
    call: str = field(default_factory=lambda: new_id("tool_call"))
    other_thread: str = field(default_factory=lambda: new_id("thread"))
    other_message: str = field(default_factory=lambda: new_id("message"))
    deleted_thread: str = field(default_factory=lambda: new_id("thread"))
    deleted_item: str = field(default_factory=lambda: new_id("message"))
    attachment: str = field(default_factory=lambda: new_id("attachment"))
    deleted_attachment: str = field(default_factory=lambda: new_id("attachment"))

    @property
    def context(self) -> RequestContext:
        return RequestContext(user_id=self.user)


async def built(store: DatabaseStore, world: World) -> World:
    says = SENTENCE.format(mark=world.mark)
    context = world.context
    for thread_id in (world.thread, world.other_thread, world.deleted_thread):
        await store.save_thread(thread(thread_id, title=says, metadata={"mark": world.mark}), context)
    common: dict[str, Any] = {"thread_id": world.thread, "created_at": datetime.fromisoformat(NAIVE.isoformat())}
    question = StructuredInputFreeform(id="why", question=says)
    for item in (
        user_message(world.thread, world.message, says),
        assistant_message(world.thread, world.answer, says),
        user_message(world.thread, world.deleted_item, says),
        WidgetItem(id=world.widget, widget=DynamicWidgetRoot.model_validate(BUTTON), **common),
        StructuredInputItem(id=world.questions, inputs=[question], **common),
        HiddenContextItem(id=new_id("message"), content=says, **common),
        ClientToolCallItem(id=world.call, call_id="call", name="look", arguments={"for": says}, **common),
    ):
        await store.add_thread_item(world.thread, item, context)
    await store.add_thread_item(
        world.other_thread, user_message(world.other_thread, world.other_message, says), context
    )
    await store.items.save_feedback(world.thread, [world.answer], "positive", context)
    for attachment_id in (world.attachment, world.deleted_attachment):
        attachment = FileAttachment(id=attachment_id, name=f"{world.mark}.txt", mime_type="text/plain")
        await store.attachments.create(
            attachment, context, storage_key="00/none", declared_bytes=1, upload_seconds=900, max_unsent=100
        )
        await store.attachments.finish_upload(attachment, context, stored_bytes=1, sha256="0")
    await store.delete_attachment(world.deleted_attachment, context)
    await store.delete_thread_item(world.thread, world.deleted_item, context)
    await store.delete_thread(world.deleted_thread, context)
    return world
