"""Generates examples of every thread item from the SDK's own models, so that a new type or variant is included."""

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from chatkit import types, widgets
from chatkit.actions import ActionConfig
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    InferenceOptions,
    ThreadItem,
    ThreadMetadata,
    UserMessageItem,
    UserMessageTextContent,
    WidgetItem,
)
from polyfactory.factories.pydantic_factory import ModelFactory

# Naive, as the SDK's times are; this hour does not exist in Berlin.
NAIVE = datetime.fromisoformat("2026-03-29T02:30:00.123456")


def item_types() -> Sequence[type[types.ThreadItemBase]]:
    union, *_ = get_args(ThreadItem)
    return get_args(union)


def examples_of(item_type: type[types.ThreadItemBase], thread_id: str) -> list[ThreadItem]:
    """Returns one item for each variant of the type's fields."""
    if item_type is WidgetItem:
        return [*_widget_items(thread_id)]
    factory = ModelFactory.create_factory(item_type, __random_seed__=7, __min_collection_length__=1)
    return [*factory.coverage(thread_id=thread_id, created_at=NAIVE)]  # type: ignore[list-item] # a member of the union


def _widget_items(thread_id: str) -> list[WidgetItem]:
    with warnings.catch_warnings():
        # The SDK deprecates its widget classes in favour of templates; both are stored in the same form.
        warnings.simplefilter("ignore", DeprecationWarning)
        union, *_ = get_args(widgets.StrictWidgetComponent)
        components = [_component(component) for component in get_args(union)]
        components.append(
            widgets.Button(
                onClickAction=ActionConfig(type="act", payload={"null": None, "list": [1, None, {"n": None}]})
            )
        )
        roots: list[Any] = [
            widgets.Card(
                children=[widgets.Col(children=components), widgets.Row(children=[widgets.Text(value="deep")])]
            ),
            widgets.ListView(children=[widgets.ListViewItem(children=components)]),
            widgets.BasicRoot.model_validate({"children": [{"type": "Text", "value": "b", "anything": {"goes": [1]}}]}),
            widgets.DynamicWidgetRoot.model_validate({"type": "Card", "children": {"type": "Custom", "x": "y"}}),
        ]
    return [
        WidgetItem(id=f"widget_{number}", thread_id=thread_id, created_at=NAIVE, widget=root, copy_text="copied")
        for number, root in enumerate(roots)
    ]


def _component(component: type[widgets.WidgetComponentBase]) -> widgets.WidgetComponentBase:
    own: dict[str, Any] = {}
    if "children" in component.model_fields:
        # Generated children would have children without end.
        own["children"] = None if component is widgets.Transition else []
    return ModelFactory.create_factory(component, __random_seed__=7, __min_collection_length__=1).build(**own)


def thread(thread_id: str, **fields: Any) -> ThreadMetadata:
    return ThreadMetadata(id=thread_id, created_at=NAIVE, **fields)


def user_message(thread_id: str, item_id: str, text: str = "Hello") -> UserMessageItem:
    return UserMessageItem(
        id=item_id,
        thread_id=thread_id,
        created_at=NAIVE,
        content=[UserMessageTextContent(text=text)],
        inference_options=InferenceOptions(),
    )


def assistant_message(thread_id: str, item_id: str, text: str = "Hi") -> AssistantMessageItem:
    return AssistantMessageItem(
        id=item_id, thread_id=thread_id, created_at=NAIVE, content=[AssistantMessageContent(text=text)]
    )
