"""Stores one user's data: threads, items that wait for a client's result, attachments, and deleted rows of each."""

import hashlib
import json
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
from chatkit_postgres.store.approvals import AskedCall
from chatkit_postgres.store.ids import new_approval_id, new_id
from chatkit_postgres.store.outcome import Outcome
from chatkit_postgres.store.partials import Checkpoint, LogEntry, PartialItem
from chatkit_postgres.store.session import WriteSession
from chatkit_postgres.store.tool_calls import ToolCall
from tests.support.assistants import BUTTON
from tests.support.items import NAIVE, assistant_message, thread, user_message

FILE = b"x"
FILE_DIGEST = hashlib.sha256(FILE).hexdigest()
FILE_KEY = f"00/none/{FILE_DIGEST}"
"""The bytes of the file of each user, which a test may put into a storage."""
SENTENCE = "The launch code is {mark}."


@dataclass
class UserData:
    """The ids of one user's rows. All texts in them contain ``mark``."""

    user: str
    mark: str
    thread: str = field(default_factory=lambda: new_id("thread"))
    message: str = field(default_factory=lambda: new_id("message"))
    answer: str = field(default_factory=lambda: new_id("message"))
    questions: str = field(default_factory=lambda: new_id("message"))
    widget: str = field(default_factory=lambda: new_id("message"))
    call: str = field(default_factory=lambda: new_id("tool_call"))
    card: str = field(default_factory=new_approval_id)
    """In ``asking_thread``: asks for one of two approvals."""
    asking_thread: str = field(default_factory=lambda: new_id("thread"))
    asking_message: str = field(default_factory=lambda: new_id("message"))
    other_thread: str = field(default_factory=lambda: new_id("thread"))
    other_message: str = field(default_factory=lambda: new_id("message"))
    deleted_thread: str = field(default_factory=lambda: new_id("thread"))
    deleted_item: str = field(default_factory=lambda: new_id("message"))
    attachment: str = field(default_factory=lambda: new_id("attachment"))
    deleted_attachment: str = field(default_factory=lambda: new_id("attachment"))

    is_answered: bool = False
    """Whether an answer is being written in ``thread``."""

    @property
    def context(self) -> RequestContext:
        return RequestContext(user_id=self.user)


async def store_user_data(store: DatabaseStore, user_data: UserData) -> UserData:
    says = SENTENCE.format(mark=user_data.mark)
    context = user_data.context
    for thread_id in (user_data.thread, user_data.other_thread, user_data.asking_thread, user_data.deleted_thread):
        await store.save_thread(thread(thread_id, title=says, metadata={"mark": user_data.mark}), context)
    common: dict[str, Any] = {"thread_id": user_data.thread, "created_at": datetime.fromisoformat(NAIVE.isoformat())}
    question = StructuredInputFreeform(id="why", question=says)
    for item in (
        user_message(user_data.thread, user_data.message, says),
        assistant_message(user_data.thread, user_data.answer, says),
        user_message(user_data.thread, user_data.deleted_item, says),
        WidgetItem(id=user_data.widget, widget=DynamicWidgetRoot.model_validate(BUTTON), **common),
        StructuredInputItem(id=user_data.questions, inputs=[question], **common),
        HiddenContextItem(id=new_id("message"), content=says, **common),
        ClientToolCallItem(id=user_data.call, call_id="call", name="look", arguments={"for": says}, **common),
    ):
        await store.add_thread_item(user_data.thread, item, context)
    await store.add_thread_item(
        user_data.other_thread, user_message(user_data.other_thread, user_data.other_message, says), context
    )
    await store.items.save_feedback(user_data.thread, [user_data.answer], "positive", context)
    for attachment_id in (user_data.attachment, user_data.deleted_attachment):
        attachment = FileAttachment(id=attachment_id, name=f"{user_data.mark}.txt", mime_type="text/plain")
        await store.attachments.create(
            attachment, context, storage_key="00/none", declared_bytes=1, upload_seconds=900, max_unsent=100
        )
        await store.attachments.finish_upload(attachment, context, stored_bytes=len(FILE), sha256=FILE_DIGEST)
    await store.delete_attachment(user_data.deleted_attachment, context)
    await _ask(store, user_data, says)
    if user_data.is_answered:
        await _begin_answer(store, user_data, says)
    await store.delete_thread_item(user_data.thread, user_data.deleted_item, context)
    await store.delete_thread(user_data.deleted_thread, context)
    return user_data


async def _ask(store: DatabaseStore, user_data: UserData, says: str) -> None:
    """A run that has used a tool waits for two approvals."""
    turn = RequestContext(user_data.user, session=WriteSession("threads.add_user_message"))
    asking = user_message(user_data.asking_thread, user_data.asking_message, says)
    await store.add_thread_item(user_data.asking_thread, asking, turn)
    await store.tool_calls.add(user_data.asking_thread, [ToolCall("look", json.dumps({"for": says}), says)], turn)
    calls = [
        AskedCall(item_id, number, f"call_{number}", agent="A", tool="pay", label=says, arguments="{}")
        for number, item_id in enumerate((user_data.card, new_approval_id()))
    ]
    await store.approvals.pause(user_data.asking_thread, json.dumps({"says": says}), calls, turn)
    card = WidgetItem(
        id=user_data.card,
        thread_id=user_data.asking_thread,
        created_at=datetime.fromisoformat(NAIVE.isoformat()),
        widget=DynamicWidgetRoot.model_validate(BUTTON),
        copy_text=says,
    )
    await store.add_thread_item(user_data.asking_thread, card, turn)
    await store.turns.finish(turn, Outcome("waiting"))


async def _begin_answer(store: DatabaseStore, user_data: UserData, says: str) -> None:
    turn = RequestContext(user_data.user, session=WriteSession("threads.add_user_message"))
    await store.add_thread_item(user_data.thread, user_message(user_data.thread, new_id("message"), says), turn)
    unfinished = assistant_message(user_data.thread, new_id("message"), says)
    await store.partials.save_items([PartialItem(turn, unfinished)])
    entry = LogEntry(unfinished.id, sequence=1, content_index=0, start=len(says), text=says)
    await store.partials.checkpoint([Checkpoint(turn, [entry])], with_heartbeat=False)
