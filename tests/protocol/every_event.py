"""A team's ChatKitServer whose answers hold every kind of event: a message names them, separated by blanks."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from chatkit.actions import Action, ActionConfig
from chatkit.errors import CustomStreamError, ErrorCode, StreamError
from chatkit.server import ChatKitServer
from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    AudioInput,
    ClientEffectEvent,
    ClientToolCallItem,
    ClosedStatus,
    CustomTask,
    EndOfTurnItem,
    HiddenContextItem,
    NoticeEvent,
    ProgressUpdateEvent,
    SDKHiddenContextItem,
    StreamOptions,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputMultipleChoice,
    StructuredInputMultipleChoiceOption,
    SyncCustomActionResponse,
    TaskItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    TranscriptionResult,
    URLSource,
    UserMessageItem,
    WidgetItem,
    Workflow,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)
from chatkit.widgets import Button, Card, Text

from tests.support.items import NAIVE

NOTE = Annotation(source=URLSource(url="https://example.com/", title="A source"), index=3)


class Answer:
    """The thread that is answered, and ids for new items."""

    def __init__(self, server: ChatKitServer[Any], thread: ThreadMetadata, context: Any) -> None:
        self.thread = thread
        self._server = server
        self._context = context

    def common(self, kind: Any = "message") -> dict[str, Any]:
        """The fields that every item has."""
        item_id = self._server.store.generate_item_id(kind, self.thread, self._context)
        return {"id": item_id, "thread_id": self.thread.id, "created_at": NAIVE}

    def message(self, *texts: str) -> AssistantMessageItem:
        return AssistantMessageItem(content=[_part(text) for text in texts], **self.common())


async def _message(answer: Answer, *texts: str, note: Annotation | None = None) -> AsyncIterator[ThreadStreamEvent]:
    item = answer.message()
    yield ThreadItemAddedEvent(item=item)
    for index, text in enumerate(texts):
        yield _updated(item, AssistantMessageContentPartAdded(content_index=index, content=_part("")))
        for letter in text:
            yield _updated(item, AssistantMessageContentPartTextDelta(content_index=index, delta=letter))
        if note is not None:
            added = AssistantMessageContentPartAnnotationAdded(content_index=index, annotation_index=0, annotation=note)
            yield _updated(item, added)
        content = AssistantMessageContent(text=text, annotations=[note] if note is not None else [])
        yield _updated(item, AssistantMessageContentPartDone(content_index=index, content=content))
        item.content.append(content)
    yield ThreadItemDoneEvent(item=item)


async def _workflow(answer: Answer) -> AsyncIterator[ThreadStreamEvent]:
    item = WorkflowItem(workflow=Workflow(type="custom", tasks=[]), **answer.common("workflow"))
    yield ThreadItemAddedEvent(item=item)
    task = CustomTask(title="Look", status_indicator="loading")
    yield _updated(item, WorkflowTaskAdded(task_index=0, task=task))
    done = task.model_copy(update={"status_indicator": "complete"})
    yield _updated(item, WorkflowTaskUpdated(task_index=0, task=done))
    item.workflow.tasks.append(done)
    yield ThreadItemDoneEvent(item=item)


async def _removed(answer: Answer) -> AsyncIterator[ThreadStreamEvent]:
    item = answer.message("Gone")
    yield ThreadItemDoneEvent(item=item)
    yield ThreadItemRemovedEvent(item_id=item.id)


async def _replaced(answer: Answer) -> AsyncIterator[ThreadStreamEvent]:
    item = answer.message("Before")
    yield ThreadItemDoneEvent(item=item)
    yield ThreadItemReplacedEvent(item=item.model_copy(update={"content": [_part("After")]}))


def _widget(answer: Answer) -> WidgetItem:
    button = Button(label="Go", onClickAction=ActionConfig(type="go", payload={"place": 1}))
    return WidgetItem(widget=Card(children=[Text(value="A card"), button]), **answer.common())


def _questions(answer: Answer) -> StructuredInputItem:
    options = [StructuredInputMultipleChoiceOption(value=name, label=name) for name in ("s", "m")]
    choice = StructuredInputMultipleChoice(id="size", question="Size?", options=options)
    return StructuredInputItem(inputs=[choice, StructuredInputFreeform(id="why", question="Why?")], **answer.common())


async def _done(item: ThreadItem) -> AsyncIterator[ThreadStreamEvent]:
    yield ThreadItemDoneEvent(item=item)


async def _event(event: ThreadStreamEvent) -> AsyncIterator[ThreadStreamEvent]:
    yield event


async def _changed(answer: Answer, **changes: Any) -> AsyncIterator[ThreadStreamEvent]:
    """The thread, and then an event."""
    for name, value in changes.items():
        setattr(answer.thread, name, value)
    yield ProgressUpdateEvent(text="Changed")


async def _raised(error: Exception) -> AsyncIterator[ThreadStreamEvent]:
    yield ProgressUpdateEvent(text="Failing")
    raise error


Step = Callable[[Answer], AsyncIterator[ThreadStreamEvent]]

STEPS: dict[str, Step] = {
    "text": lambda answer: _message(answer, "Hello"),
    "parts": lambda answer: _message(answer, "One", "Two"),
    "annotation": lambda answer: _message(answer, "See", note=NOTE),
    "empty": _message,
    "widget": lambda answer: _done(_widget(answer)),
    "workflow": _workflow,
    "task": lambda answer: _done(TaskItem(task=CustomTask(title="Done"), **answer.common("task"))),
    "progress": lambda _: _event(ProgressUpdateEvent(text="Working")),
    "notice": lambda _: _event(NoticeEvent(level="info", message="Careful", title="Note")),
    "effect": lambda _: _event(ClientEffectEvent(name="zoom", data={"level": [1, None]})),
    "hidden": lambda answer: _done(HiddenContextItem(content="secret", **answer.common())),
    "sdk_hidden": lambda answer: _done(SDKHiddenContextItem(content="secret", **answer.common("sdk_hidden_context"))),
    "removed": _removed,
    "replaced": _replaced,
    "title": lambda answer: _changed(answer, title=f"{answer.thread.title or ''}A title"),
    "metadata": lambda answer: _changed(answer, metadata={**answer.thread.metadata, "seen": True}),
    "domains": lambda answer: _changed(answer, allowed_image_domains=["images.example.com"]),
    "end_of_turn": lambda answer: _done(EndOfTurnItem(**answer.common())),
}
"""In any order, any number of times."""

LAST_STEPS: dict[str, Step] = {
    "tool": lambda answer: _done(
        ClientToolCallItem(call_id="c", name="where", arguments={}, **answer.common("tool_call"))
    ),
    "ask": lambda answer: _done(_questions(answer)),
    "custom_error": lambda _: _raised(CustomStreamError("Not today.", allow_retry=True)),
    "stream_error": lambda _: _raised(StreamError(ErrorCode.STREAM_ERROR, allow_retry=False)),
    "crash": lambda _: _raised(ZeroDivisionError()),
    "close": lambda answer: _changed(answer, status=ClosedStatus(reason="Over")),
}


class Team(ChatKitServer[Any]):
    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        text = input_user_message.content[0].text if input_user_message is not None else "text"
        for name in text.split():
            step = (STEPS | LAST_STEPS).get(name, STEPS["progress"])
            async for event in step(Answer(self, thread, context)):
                yield event

    async def action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        yield ProgressUpdateEvent(text=json.dumps(action.payload))
        if sender is not None:
            yield ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": Card(children=[Text(value="!")])}))

    async def sync_action(
        self, thread: ThreadMetadata, action: Action[str, Any], sender: WidgetItem | None, context: Any
    ) -> SyncCustomActionResponse:
        assert sender is not None
        changed = sender.model_copy(update={"widget": Card(children=[Text(value="At once")])})
        return SyncCustomActionResponse(updated_item=changed)

    async def transcribe(self, audio_input: AudioInput, context: Any) -> TranscriptionResult:
        return TranscriptionResult(text=f"{len(audio_input.data)} bytes of {audio_input.media_type}")

    def get_stream_options(self, thread: ThreadMetadata, context: Any) -> StreamOptions:
        return StreamOptions(allow_cancel=thread.title is None)


def _part(text: str) -> AssistantMessageContent:
    return AssistantMessageContent(text=text)


def _updated(item: ThreadItem, update: Any) -> ThreadItemUpdatedEvent:
    return ThreadItemUpdatedEvent(item_id=item.id, update=update)
