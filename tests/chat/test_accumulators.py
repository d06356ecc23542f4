"""What was shown of an item that did not come to its end is kept, and says nothing of being under way."""

import asyncio
from typing import Any

import pytest
from chatkit.types import (
    Annotation,
    AssistantMessageContentPartAnnotationAdded,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    CustomTask,
    EntitySource,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemUpdatedEvent,
    WidgetComponentUpdated,
    WidgetItem,
    WidgetRootUpdated,
    WidgetStreamingTextValueDelta,
    Workflow,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)
from chatkit.widgets import DynamicWidgetComponent, DynamicWidgetRoot

from chatkit_postgres.chat.turns.draft import accumulator_for
from chatkit_postgres.chat.turns.running_turn import RunningTurn, no_readers
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, Scripted, create, message, wait_for_text
from tests.support.items import NAIVE


def root(value: str, label: str = "busy") -> DynamicWidgetRoot:
    text = {"type": "Text", "id": "text", "value": value, "streaming": True}
    return DynamicWidgetRoot.model_validate(
        {
            "type": "Card",
            "children": [{"type": "Row", "children": [text]}, {"type": "Badge", "id": "b", "label": label}],
        }
    )


def widget(value: str = "") -> WidgetItem:
    return WidgetItem(id="w", thread_id="t", created_at=NAIVE, widget=root(value))


def workflow(*titles: str) -> WorkflowItem:
    tasks = [CustomTask(title=title, status_indicator="loading") for title in titles]
    return WorkflowItem(id="f", thread_id="t", created_at=NAIVE, workflow=Workflow(type="custom", tasks=[*tasks]))


def after(item: ThreadItem, *updates: Any) -> Any:
    following = accumulator_for(item)
    for update in updates:
        following.apply(update)
    return following.snapshot()


def test_a_widget_is_as_it_was_last_shown() -> None:
    grown = after(
        widget("a"),
        WidgetStreamingTextValueDelta(component_id="text", delta="bc", done=False),
        WidgetStreamingTextValueDelta(component_id="nowhere", delta="lost", done=False),
        WidgetComponentUpdated(
            component_id="b",
            component=DynamicWidgetComponent.model_validate({"type": "Badge", "id": "b", "label": "done"}),
        ),
    )
    shown = grown.model_dump_json()
    assert '"value":"abc"' in shown
    assert '"label":"done"' in shown
    assert "streaming" not in shown
    assert '"value":"new"' in after(widget("old"), WidgetRootUpdated(widget=root("new"))).model_dump_json()


def test_a_workflow_is_not_loading_for_ever() -> None:
    done = CustomTask(title="one", status_indicator="complete")
    more = CustomTask(title="two", status_indicator="loading")
    kept = after(
        workflow("one"),
        WorkflowTaskAdded(task_index=1, task=more),
        WorkflowTaskUpdated(task_index=0, task=done),
        WorkflowTaskUpdated(task_index=7, task=done),
    )
    assert [(task.title, task.status_indicator) for task in kept.workflow.tasks] == [
        ("one", "complete"),
        ("two", "none"),
    ]
    assert after(workflow()) is None


async def newest(store: DatabaseStore, turn: RunningTurn) -> ThreadItem:
    assert turn.session.thread_id is not None
    page = await store.load_thread_items(turn.session.thread_id, None, 10, "desc", RequestContext(user_id="alice"))
    return page.data[0]


async def checkpointed(store: DatabaseStore, turn: RunningTurn, words: str) -> None:
    async with asyncio.timeout(10):
        while words not in (await newest(store, turn)).model_dump_json():  # noqa: ASYNC110 - the event is in another task
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("item", "update", "kept"),
    [
        (message("m"), AssistantMessageContentPartTextDelta(content_index=0, delta="so far"), "so far"),
        (widget(), WidgetStreamingTextValueDelta(component_id="text", delta="so far", done=False), "so far"),
        (workflow(), WorkflowTaskAdded(task_index=0, task=CustomTask(title="so far")), "so far"),
    ],
    ids=["message", "widget", "workflow"],
)
async def test_a_stopped_turn_keeps_what_was_shown(
    store: DatabaseStore, item: ThreadItem, update: Any, kept: str
) -> None:
    for is_checkpointed in (True, False):
        silence = asyncio.Event()
        chat = Chat(
            store,
            Scripted(ThreadItemAddedEvent(item=item), ThreadItemUpdatedEvent(item_id=item.id, update=update), silence),
        )
        turn = await chat.start(create("Hello"))
        await wait_for_text(turn, kept.encode())
        if is_checkpointed:
            await checkpointed(store, turn, kept)
        turn.stop(no_readers())
        await turn.task
        shown = await newest(store, turn)
        assert shown.type == item.type
        assert kept in shown.model_dump_json()


def test_an_annotation_is_put_where_it_belongs_also_if_it_comes_late() -> None:
    """As the SDK and ChatKit's own script put it."""

    def annotation(name: str, at: int) -> AssistantMessageContentPartAnnotationAdded:
        source = EntitySource(id=name, title=name)
        return AssistantMessageContentPartAnnotationAdded(
            content_index=0, annotation_index=at, annotation=Annotation(source=source)
        )

    following = accumulator_for(message("m", "Two towns"))
    first = following.changes(lambda: 1)
    assert first is not None
    first.saved()
    following.apply(annotation("second", 0))
    later = following.changes(lambda: 2)
    assert later is not None
    assert later.item is None
    later.saved()
    following.apply(annotation("first", 0))
    # The log only knows what is added at the end.
    whole = following.changes(lambda: 3)
    assert whole is not None
    assert isinstance(whole.item, AssistantMessageItem)
    assert [one.source.title for one in whole.item.content[0].annotations] == ["first", "second"]
