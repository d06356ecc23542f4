"""Thread items as model input, for both model APIs."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any
from uuid import NAMESPACE_OID, uuid5

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
    SDKHiddenContextItem,
    SearchTask,
    StructuredInputItem,
    Task,
    TaskItem,
    ThoughtTask,
    ThreadItem,
    UserMessageItem,
    UserMessageTagContent,
    WidgetItem,
    WorkflowItem,
)
from openai.types.responses import EasyInputMessageParam, ResponseFunctionToolCallParam, ResponseInputTextParam
from openai.types.responses.response_input_param import FunctionCallOutput

from app.assistant.attached import Part, contents_of, named
from app.context import Files
from app.store.attachments import id_in

NOTE_BEGINS = "<Context>\n"
NOTE_ENDS = "\n</Context>"
"""Around what is told in the name of the user, who did not say it."""
LONGEST_CALL_ID = 64
"""OpenAI refuses longer ones."""
STOPPED = "[This answer was stopped before its end, when the user no longer read it.]"
OVERTAKEN = "[The user wrote again before this answer was finished.]"
BROKE_OFF = "[This answer broke off before its end.]"
_ENDINGS = {"stopped": STOPPED, "superseded": OVERTAKEN, "running": OVERTAKEN}

ResolveTag = Callable[[UserMessageTagContent], Awaitable[str]]


class HistoryConverter(ThreadItemConverter):
    """What the SDK leaves to its users, and what chat-completions models cannot read."""

    def __init__(
        self,
        resolve_tag: ResolveTag | None = None,
        cut_short: Mapping[str, str] = MappingProxyType({}),
        without_pictures: AbstractSet[str] = frozenset(),
        files: Files | None = None,
        said: str = "",
    ) -> None:
        """``cut_short`` has the state of the turn for each answer that did not come to its end; ``without_pictures``
        the messages whose pictures are only named; ``said`` is what a client tells of its user and page."""
        self._resolve_tag = resolve_tag
        self._cut_short = cut_short
        self._without_pictures = without_pictures
        self._files = files
        self._said = said
        self._contents: dict[str, Part] = {}
        self._newest: str | None = None
        """Id of the user's newest message."""

    async def to_agent_input(self, thread_items: Sequence[ThreadItem] | ThreadItem) -> list[TResponseInputItem]:
        items = list(thread_items) if isinstance(thread_items, Sequence) else [thread_items]
        # All of them at once, because the newest files come first.
        if self._files is not None:
            self._contents = await contents_of(items, self._files, without_pictures=self._without_pictures)
        self._newest = next((item.id for item in reversed(items) if isinstance(item, UserMessageItem)), None)
        given = await super().to_agent_input(items)
        if self._said and self._newest is None:
            given.append(_note(self._said))
        return given

    async def user_message_to_input(self, item: UserMessageItem, is_last_message: bool = True) -> Any:  # noqa: ARG002 - the SDK's signature
        """One message, whatever is told with it. The SDK leaves the quotation out of all but the last, and the model
        then wonders what "this" was."""
        said: Any = await super().user_message_to_input(item, is_last_message=True)
        words, *notes = said
        content = [part for part in words["content"] if part.get("text") != ""]
        content += [_text(_as_note(note)) for note in notes]
        if self._said and item.id == self._newest:
            content.append(_text(_as_note(self._said)))
        return EasyInputMessageParam(type="message", role="user", content=content)

    async def assistant_message_to_input(self, item: AssistantMessageItem) -> TResponseInputItem | None:
        # Plain text is read by both model APIs. The SDK's output_text parts fail with chat completions on the
        # second turn.
        texts = [part.text for part in item.content if part.text]
        if item.id in self._cut_short:
            texts.append(_ENDINGS.get(self._cut_short[item.id], BROKE_OFF))
        return EasyInputMessageParam(type="message", role="assistant", content="\n".join(texts)) if texts else None

    async def client_tool_call_to_input(self, item: ClientToolCallItem) -> Any:
        if item.status != "completed":
            # A call without its output is refused by models; that it was made is still worth knowing.
            return _note(f"The user's browser was asked to run {item.name!r} and has not answered.")
        # Not the provider's id, which may be long, or the same as another one's.
        call_id = item.id if len(item.id) <= LONGEST_CALL_ID else uuid5(NAMESPACE_OID, item.id).hex
        output = item.output if isinstance(item.output, str) else json.dumps(item.output, ensure_ascii=False)
        arguments = json.dumps(item.arguments, ensure_ascii=False)
        return [
            ResponseFunctionToolCallParam(type="function_call", call_id=call_id, name=item.name, arguments=arguments),
            FunctionCallOutput(type="function_call_output", call_id=call_id, output=output),
        ]

    async def widget_to_input(self, item: WidgetItem) -> Any:
        if item.copy_text:
            return _note(f"The user was shown a widget that says: {item.copy_text}")
        return _note(await super().widget_to_input(item))

    async def structured_input_to_input(self, item: StructuredInputItem) -> Any:
        return _note(await super().structured_input_to_input(item))

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
        return _note(await super().hidden_context_to_input(item))

    async def sdk_hidden_context_to_input(self, item: SDKHiddenContextItem) -> Any:
        return _note(await super().sdk_hidden_context_to_input(item))


def is_question(item: Any) -> bool:
    """Whether an item of model input is a message of the user's own, and not only notes in their name."""
    if not isinstance(item, Mapping) or item.get("role") != "user":
        return False
    content = item.get("content")
    # Notes stand behind what the user said or attached.
    first = content if isinstance(content, str) else next((part.get("text") for part in content or ()), None)
    return not (isinstance(first, str) and first.startswith(NOTE_BEGINS) and first.endswith(NOTE_ENDS))


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


def _as_note(told: Any) -> str:
    """A text, or the texts of a message that the SDK makes, as a note."""
    if not isinstance(told, str):
        told = "\n".join(part["text"] for part in told["content"])
    return f"{NOTE_BEGINS}{told}{NOTE_ENDS}"


def _note(told: Any, *more: Part) -> EasyInputMessageParam:
    return EasyInputMessageParam(type="message", role="user", content=[_text(_as_note(told)), *more])


def _text(text: str) -> ResponseInputTextParam:
    return ResponseInputTextParam(type="input_text", text=text)
