"""An assistant with the widgets that the demo does not have; its responses contain the payloads of their actions."""

import json
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

from chatkit.agents import AgentContext
from chatkit.types import ThreadItem, ThreadItemDoneEvent, ThreadStreamEvent, UserMessageItem, WidgetItem
from chatkit.widgets import DynamicWidgetRoot
from pydantic import BaseModel, ConfigDict

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.actions import action
from chatkit_postgres.assistant.demo.scene import says
from chatkit_postgres.context import RequestContext
from chatkit_postgres.ports import Events

Context = AgentContext[RequestContext]


def _act(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "handler": "server", "loadingBehavior": "auto", "streaming": True, **more}


FIELDS: list[dict[str, Any]] = [
    {"type": "Title", "value": "An order"},
    {"type": "Caption", "value": "Everything a form can hold"},
    {"type": "Divider"},
    {"type": "Label", "value": "Name", "fieldName": "customer.name"},
    {"type": "Input", "name": "customer.name", "defaultValue": "Ada"},
    {"type": "Textarea", "name": "note", "placeholder": "Note"},
    {
        "type": "Select",
        "name": "size",
        "placeholder": "Size",
        "options": [{"value": "s", "label": "Small"}, {"value": "l", "label": "Large"}],
    },
    {"type": "Checkbox", "name": "gift", "label": "As a gift"},
    {
        "type": "RadioGroup",
        "name": "way",
        "ariaLabel": "Delivery",
        "options": [
            {"value": "post", "label": "By post"},
            {"value": "bike", "label": "By bike"},
            {"value": "air", "label": "By air", "disabled": True},
        ],
    },
    {"type": "DatePicker", "name": "day", "placeholder": "Day"},
    {"type": "Text", "value": "By hand", "editable": {"name": "label", "placeholder": "Label", "required": True}},
    {"type": "Input", "name": "__proto__.broken", "placeholder": "Odd", "defaultValue": "x"},
    {"type": "Input", "name": "elements", "placeholder": "Odder", "defaultValue": "y"},
    {"type": "Button", "label": "Save a draft", "onClickAction": _act("draft", payload={"note": "the action's own"})},
]
WIDGETS: dict[str, dict[str, Any]] = {
    "order": {
        "type": "Card",
        "asForm": True,
        "status": {"text": "Not sent yet"},
        "children": FIELDS,
        "confirm": {"label": "Order", "action": _act("order")},
        "cancel": {"label": "Forget it", "action": _act("forget")},
    },
    "choose": {
        "type": "Card",
        "children": [
            {"type": "Select", "name": "pick", "options": [{"value": "a", "label": "A"}, {"value": "b", "label": "B"}],
             "onChangeAction": _act("picked")},
            {"type": "Button", "label": "Here", "onClickAction": _act("here", handler="client", payload={"id": 1})},
        ],
    },
    "long": {
        "type": "ListView",
        "limit": 2,
        "children": [
            {"type": "ListViewItem", "children": [{"type": "Text", "value": f"Row {number}"}],
             "onClickAction": _act("picked", payload={"number": number})}
            for number in range(5)
        ],
    },
    "odd": {"type": "Card", "children": [{"type": "Select", "name": "x"}]},
    "unknown": {"type": "Card", "children": [{"type": "Hologram", "children": [{"type": "Text", "value": "inside"}]}]},
    "chart": {
        "type": "Card",
        "children": [
            {"type": "Chart", "data": [{"year": "2025", "sum": 1}, {"year": "2026", "sum": 2}], "xAxis": "year",
             "series": [{"type": "bar", "dataKey": "sum", "label": "Sum"}]},
            {"type": "Image", "src": "https://evil.example/track.png", "alt": "A chart elsewhere"},
            {"type": "Image", "src": "//evil.example/track.png", "alt": "Another"},
        ],
    },
}  # fmt: skip


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class Shop(Assistant):
    async def respond(self, history: Sequence[ThreadItem], context: Context) -> AsyncGenerator[ThreadStreamEvent, None]:
        (message,) = [item for item in history[-1:] if isinstance(item, UserMessageItem)]
        root = DynamicWidgetRoot.model_validate(WIDGETS[message.content[0].text])
        new = {"id": context.generate_id("message"), "thread_id": context.thread.id}
        yield ThreadItemDoneEvent(item=WidgetItem(**new, created_at=datetime.now(), widget=root))  # noqa: DTZ005 - as the SDK does

    @action("order", Anything)
    async def order(self, payload: Anything, _sender: WidgetItem | None, context: Context) -> Events:
        async for event in says(context, f"order `{_as_json(payload)}`"):
            yield event

    @action("draft", Anything)
    async def draft(self, payload: Anything, _sender: WidgetItem | None, context: Context) -> Events:
        async for event in says(context, f"draft `{_as_json(payload)}`"):
            yield event

    @action("forget", Anything)
    async def forget(self, _payload: Anything, _sender: WidgetItem | None, context: Context) -> Events:
        async for event in says(context, "forgotten"):
            yield event

    @action("picked", Anything)
    async def picked(self, payload: Anything, _sender: WidgetItem | None, context: Context) -> Events:
        async for event in says(context, f"picked `{_as_json(payload)}`"):
            yield event


def _as_json(payload: Anything) -> str:
    return json.dumps(payload.model_dump(), sort_keys=True)


def build() -> Assistant:
    return Shop()
