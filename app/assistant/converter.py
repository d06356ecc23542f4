"""Thread items as model input, for both model APIs."""

import json
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from agents import TResponseInputItem
from chatkit.agents import ThreadItemConverter
from chatkit.types import (
    AssistantMessageItem,
    Attachment,
    ClientToolCallItem,
    CustomTask,
    FileTask,
    GeneratedImageItem,
    HiddenContextItem,
    ImageTask,
    SearchTask,
    Task,
    TaskItem,
    ThoughtTask,
    ThreadItem,
    UserMessageItem,
    UserMessageTagContent,
    WidgetItem,
    WorkflowItem,
)
from openai.types.responses import EasyInputMessageParam, ResponseInputTextParam

from app.assistant.attached import Part, contents_of, named
from app.context import Files
from app.store.attachments import id_in

NOTE_BEGINS = "<Context>\n"
"""What is told in the name of the user, who did not say it."""
STOPPED = "[This answer was stopped here by the user.]"

ResolveTag = Callable[[UserMessageTagContent], Awaitable[str]]


class HistoryConverter(ThreadItemConverter):
    """What the SDK leaves to its users, and what chat-completions models cannot read."""

    def __init__(
        self,
        resolve_tag: ResolveTag | None = None,
        unfinished: AbstractSet[str] = frozenset(),
        files: Files | None = None,
        said: str = "",
    ) -> None:
        """``said`` is what a client tells of its user and page."""
        self._resolve_tag = resolve_tag
        self._unfinished = unfinished
        self._files = files
        self._said = said
        self._contents: dict[str, Part] = {}

    async def to_agent_input(self, thread_items: Sequence[ThreadItem] | ThreadItem) -> list[TResponseInputItem]:
        items = list(thread_items) if isinstance(thread_items, Sequence) else [thread_items]
        # All of them at once, because the newest files come first.
        self._contents = await contents_of(items, self._files) if self._files is not None else {}
        given = await super().to_agent_input(items)
        if self._said:
            # Before the last message, so that what came before it stays the same and is cached.
            is_user = [isinstance(part, dict) and part.get("role") == "user" for part in given]
            last = len(given) - 1 - is_user[::-1].index(True) if any(is_user) else len(given)
            given.insert(last, _note(self._said))
        return given

    async def user_message_to_input(self, item: UserMessageItem, is_last_message: bool = True) -> Any:  # noqa: ARG002 - the SDK's signature
        # The SDK leaves the quotation out of all messages but the last, and the model then wonders what "this" was.
        return await super().user_message_to_input(item, is_last_message=True)

    async def assistant_message_to_input(self, item: AssistantMessageItem) -> TResponseInputItem | None:
        # Plain text is read by both model APIs. The SDK's output_text parts fail with chat completions on the
        # second turn.
        texts = [part.text for part in item.content if part.text]
        if item.id in self._unfinished:
            texts.append(STOPPED)
        return EasyInputMessageParam(type="message", role="assistant", content="\n".join(texts)) if texts else None

    async def client_tool_call_to_input(self, item: ClientToolCallItem) -> Any:
        if item.status == "completed":
            return await super().client_tool_call_to_input(item)
        # A call without its output is refused by models; that it was made is still worth knowing.
        return _note(f"The user's browser was asked to run {item.name!r} and has not answered.")

    async def widget_to_input(self, item: WidgetItem) -> Any:
        if item.copy_text:
            return _note(f"The user was shown a widget that says: {item.copy_text}")
        return await super().widget_to_input(item)

    async def task_to_input(self, item: TaskItem) -> Any:
        said = _of_task(item.task)
        return _note(f"The user was shown that this was done: {said}") if said else None

    async def workflow_to_input(self, item: WorkflowItem) -> Any:
        said = [f"- {line}" for line in map(_of_task, item.workflow.tasks) if line]
        return _note("\n".join(["The user was shown that this was done:", *said])) if said else None

    async def generated_image_to_input(self, item: GeneratedImageItem) -> Any:
        # Its address is for the user's browser; a model's server cannot read it.
        if item.image is None:
            return None
        seen = self._contents.get(id_in(item.image.url) or "")
        return _note("An image was generated and shown to the user.", *([seen] if seen is not None else []))

    async def attachment_to_message_content(self, attachment: Attachment) -> Part:
        return self._contents.get(attachment.id) or named(attachment)

    async def tag_to_message_content(self, tag: UserMessageTagContent) -> ResponseInputTextParam:
        if self._resolve_tag is not None:
            return _text(await self._resolve_tag(tag))
        return _text(f"@{tag.text}: {json.dumps(tag.data, ensure_ascii=False)}")

    async def hidden_context_to_input(self, item: HiddenContextItem) -> Any:
        if not isinstance(item.content, str):
            item = item.model_copy(update={"content": json.dumps(item.content, ensure_ascii=False)})
        return await super().hidden_context_to_input(item)


def _of_task(task: Task) -> str:
    """What there is to say of a task. A thought stays the model's own."""
    match task:
        case CustomTask():
            return ": ".join(filter(None, (task.title, task.content)))
        case SearchTask():
            found = [f"{source.title} <{source.url}>" for source in task.sources]
            return "; ".join(filter(None, (task.title or task.title_query, ", ".join(task.queries), ", ".join(found))))
        case FileTask():
            return ": ".join(filter(None, (task.title, ", ".join(source.filename for source in task.sources))))
        case ImageTask():
            return task.title or ""
        case ThoughtTask():
            return ""


def _note(text: str, *more: Part) -> EasyInputMessageParam:
    return EasyInputMessageParam(
        type="message", role="user", content=[_text(f"{NOTE_BEGINS}{text}\n</Context>"), *more]
    )


def _text(text: str) -> ResponseInputTextParam:
    return ResponseInputTextParam(type="input_text", text=text)
