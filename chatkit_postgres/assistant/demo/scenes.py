"""One scene for each feature of ChatKit, so that a front end can be built and tested without a model."""

import asyncio
from collections.abc import AsyncGenerator

from chatkit.errors import CustomStreamError
from chatkit.server import stream_widget
from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    ClientEffectEvent,
    ClientToolCallItem,
    CustomSummary,
    CustomTask,
    EntitySource,
    FileSource,
    FileTask,
    GeneratedImage,
    GeneratedImageItem,
    GeneratedImageUpdated,
    ImageTask,
    NoticeEvent,
    ProgressUpdateEvent,
    SearchTask,
    StructuredInputFreeform,
    StructuredInputItem,
    StructuredInputMultipleChoice,
    StructuredInputMultipleChoiceOption,
    Task,
    TaskItem,
    ThoughtTask,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    URLSource,
    WidgetComponentUpdated,
    Workflow,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)
from chatkit.widgets import DynamicWidgetComponent, DynamicWidgetRoot

from chatkit_postgres.assistant.demo import widgets
from chatkit_postgres.assistant.demo.drawing import drawn
from chatkit_postgres.assistant.demo.scene import PAUSE_SECONDS, SCENES, Context, new, says, scene, updated
from chatkit_postgres.ports import Events

__all__ = ["SCENES"]


async def _stream_widget(context: Context, root: DynamicWidgetRoot, copy_text: str) -> Events:
    async for event in stream_widget(context.thread, root, copy_text, context.generate_id):
        yield event


MARKDOWN = """\
### What Markdown can do here

A paragraph with **strong**, *emphasised* and ~~struck~~ words, `code`, and [a link](https://www.postgresql.org/docs/).

| isolation level | dirty read | phantom |
|:--|:-:|--:|
| read committed | no | possible |
| serializable | no | no |

```python
async def titles_of(connection: Connection, user_id: str) -> list[str]:
    rows = await connection.fetch("SELECT title FROM chat_sessions WHERE user_id = $1", user_id)
    return [row["title"] for row in rows]
```

```sql
SELECT item_id, position FROM chat_messages WHERE user_id = $1 ORDER BY position;
```

> A quotation.

1. one
2. two
   - and a half

- [x] a task that is done
- [ ] and one that is not

A formula, $e^{i\\pi} + 1 = 0$, and a footnote[^1].

[^1]: Which is here.

<b>Markup is shown as it is</b>, and a picture as a link: ![a picture](https://example.com/picture.png)."""


@scene("markdown", "Text", "Show me a table and code in Markdown.", "text with a table, code, a quotation and lists")
async def markdown(context: Context) -> Events:
    async for event in says(context, MARKDOWN):
        yield event


@scene("long", "Text", "Write a long answer, quickly.", "forty chapters in a few seconds")
async def long(context: Context) -> Events:
    paragraph = "This paragraph is one of many: what stands above is not drawn again while the rest is written. " * 4
    chapters = [f"## Chapter {number}\n\n{paragraph}\n\n```python\nchapter = {number}\n```" for number in range(1, 41)]
    async for event in says(context, "\n\n".join(chapters), pause=0.001):
        yield event


@scene("card", "Widgets", "Show me a card.", "a card with a row, a badge and Markdown")
async def card(context: Context) -> Events:
    async for event in _stream_widget(context, widgets.card(), "Order 4711 is on its way."):
        yield event


@scene("list", "Widgets", "Let me choose from a list.", "a list; the row that is chosen changes it")
async def list_view(context: Context) -> Events:
    async for event in _stream_widget(context, widgets.list_view(), "Lisbon, Oslo, Porto"):
        yield event


@scene("form", "Widgets", "Give me a form to fill in.", "a form; what is sent is answered")
async def form(context: Context) -> Events:
    async for event in _stream_widget(context, widgets.form(), "A form that asks for a name."):
        yield event


@scene(
    "buttons",
    "Widgets",
    "Show me buttons that count.",
    "two buttons: one counts, one is answered",
)
async def buttons(context: Context) -> Events:
    async for event in _stream_widget(context, widgets.buttons(), "A button that counts."):
        yield event


@scene("picture", "Widgets", "Show me a widget with a picture.", "a widget with an image")
async def picture(context: Context) -> Events:
    async for event in _stream_widget(context, widgets.picture(), "A yellow circle."):
        yield event


@scene("draw", "Widgets", "Please draw an image for me.", "a generated image, with a preview while it is made")
async def draw(context: Context) -> Events:
    item = GeneratedImageItem(**new(context))
    yield ThreadItemAddedEvent(item=item)
    for progress in (0.3, 0.7):
        await asyncio.sleep(PAUSE_SECONDS)
        sketch = GeneratedImage(id=item.id, url=await _store_drawing(context, progress))
        yield updated(item, GeneratedImageUpdated(image=sketch, progress=progress))
    image = GeneratedImage(id=item.id, url=await _store_drawing(context, 1))
    yield ThreadItemDoneEvent(item=item.model_copy(update={"image": image}))


async def _store_drawing(context: Context, progress: float) -> str:
    files = context.request_context.files
    if files is None:
        raise RuntimeError("images are stored as files of the user who asks")
    return await files.store_image(await asyncio.to_thread(drawn, progress), "hills.png")


@scene("writing", "Widgets", "Let me watch you writing into a card.", "a widget whose text is streamed into it")
async def writing(context: Context) -> Events:
    async def states() -> AsyncGenerator[DynamicWidgetRoot, None]:
        text = ""
        yield widgets.writing(text, done=False, badge="writing")
        for word in ("This", "text", "grows", "inside", "a", "widget."):
            await asyncio.sleep(PAUSE_SECONDS)
            text = f"{text} {word}".strip()
            yield widgets.writing(text, done=False, badge="writing")
        yield widgets.writing(text, done=True, badge="done")

    async for event in stream_widget(context.thread, states(), "A text in a widget.", context.generate_id):
        if isinstance(event, ThreadItemDoneEvent):
            # The SDK's own comparison of states never sends a single component.
            badge = DynamicWidgetComponent.model_validate({"type": "Badge", "id": "state", "label": "done"})
            yield updated(event.item, WidgetComponentUpdated(component_id="state", component=badge))
        yield event


@scene("tool", "Tools", "Call a tool in my browser.", "a call that this page answers")
async def client_tool(context: Context) -> Events:
    call = {"call_id": context.generate_id("tool_call"), "name": "get_page_title", "arguments": {"trim": True}}
    yield ThreadItemDoneEvent(item=ClientToolCallItem(**call, **new(context, "tool_call")))


@scene("questions", "Tools", "Ask me a few questions.", "one choice, several choices, free text")
async def questions(context: Context) -> Events:
    def choice(question_id: str, question: str, *values: str, multiple: bool = False) -> StructuredInputMultipleChoice:
        options = [StructuredInputMultipleChoiceOption(value=value) for value in values]
        return StructuredInputMultipleChoice(id=question_id, question=question, options=options, multiple=multiple)

    inputs = [
        choice("size", "Which size?", "S", "M", "L"),
        choice("extras", "Which extras?", "gift wrap", "card", multiple=True),
        StructuredInputFreeform(id="note", question="Anything else?", description="For the courier"),
    ]
    yield ThreadItemDoneEvent(item=StructuredInputItem(inputs=inputs, **new(context)))


@scene("workflow", "Tools", "Show me a workflow while you work.", "a workflow with tasks of every kind, and progress")
async def workflow(context: Context) -> Events:
    source = URLSource(url="https://www.postgresql.org/docs/", title="PostgreSQL documentation")
    tasks: list[Task] = [
        ThoughtTask(title="Thinking", content="What is asked for?"),
        SearchTask(title="Searching", queries=["postgresql uuid5"], sources=[source]),
        FileTask(title="Reading", sources=[FileSource(filename="notes.md", title="Notes")]),
        ImageTask(title="Looking at a picture"),
        CustomTask(title="Writing it down", icon="check", content="Three lines"),
    ]
    item = WorkflowItem(workflow=Workflow(type="custom", tasks=[]), **new(context, "workflow"))
    yield ThreadItemAddedEvent(item=item)
    for number, task in enumerate(tasks):
        loading = task.model_copy(update={"status_indicator": "loading"})
        yield ProgressUpdateEvent(text=f"Step {number + 1} of {len(tasks)}", icon="sparkle")
        yield updated(item, WorkflowTaskAdded(task_index=number, task=loading))
        await asyncio.sleep(PAUSE_SECONDS)
        tasks[number] = task.model_copy(update={"status_indicator": "complete"})
        yield updated(item, WorkflowTaskUpdated(task_index=number, task=tasks[number]))
    done = Workflow(type="custom", tasks=tasks, summary=CustomSummary(title="All done"), expanded=False)
    yield ThreadItemDoneEvent(item=item.model_copy(update={"workflow": done}))
    async for event in says(context, "That took five steps."):
        yield event


@scene("task", "Tools", "Show me a single task.", "a single task outside of a workflow")
async def task(context: Context) -> Events:
    done = CustomTask(title="Looked it up", icon="search", content="Nothing is missing.")
    yield ThreadItemDoneEvent(item=TaskItem(task=done, **new(context, "task")))


@scene("citation", "Text", "Answer with a citation of your sources.", "an answer with a link and a file as sources")
async def citation(context: Context) -> Events:
    web = URLSource(url="https://www.rfc-editor.org/rfc/rfc9562", title="RFC 9562", attribution="IETF")
    file = FileSource(filename="handbook.pdf", title="Handbook, page 12")
    notes = [Annotation(source=web, index=29), Annotation(source=file, index=55)]
    async for event in says(context, "A UUID of version 5 is a hash. The handbook says so too.", notes):
        yield event


@scene(
    "entity", "Text", "Mention an entity of the application.", "an answer that refers to an entity of the application"
)
async def entity(context: Context) -> Events:
    order = EntitySource(
        id="order-4711", title="Order 4711", icon="cube", interactive=True, data={"number": 4711}, inline_label="4711"
    )
    async for event in says(context, "See this order for it.", [Annotation(source=order, index=14)]):
        yield event


@scene("notice", "Faults", "Send me a notice of every kind.", "notices of every level")
async def notice(context: Context) -> Events:
    yield NoticeEvent(level="info", title="By the way", message="This is **only** a demo.")
    yield NoticeEvent(level="warning", message="One message is left today.")
    yield NoticeEvent(level="danger", message="That was the last one.")
    async for event in says(context, "Three notices were shown."):
        yield event


@scene("effect", "Tools", "Cause an effect in the page.", "a client effect: the front end is asked to do something")
async def effect(context: Context) -> Events:
    yield ClientEffectEvent(name="open_panel", data={"panel": "orders", "id": 4711})
    async for event in says(context, "I asked your front end to open a panel."):
        yield event


@scene("mistake", "Faults", "Make a mistake and take it back.", "an item that is taken back")
async def mistake(context: Context) -> Events:
    wrong = AssistantMessageItem(content=[AssistantMessageContent(text="Two and two is five.")], **new(context))
    yield ThreadItemDoneEvent(item=wrong)
    await asyncio.sleep(PAUSE_SECONDS)
    yield ThreadItemRemovedEvent(item_id=wrong.id)
    async for event in says(context, "Two and two is four."):
        yield event


@scene(
    "error", "Faults", "Show me an error on the way.", "an answer that fails on the way, with a message for the user"
)
async def error(context: Context) -> Events:
    count = 0
    async for event in says(context, "This answer will not get to its end, because the demo was asked for an error."):
        count += 1
        if count > 10:
            raise CustomStreamError("The demo was asked for an error.", allow_retry=True)
        yield event


@scene("slow", "Text", "Give me a slow answer that I can stop.", "an answer that takes its time: try Stop")
async def slow(context: Context) -> Events:
    text = " ".join(["This is a slow answer: stop it, and what you have read of it stays."] * 8)
    async for event in says(context, text, pause=0.1):
        yield event
