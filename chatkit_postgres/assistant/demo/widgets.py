"""The widgets of the demo, in plain JSON, as ChatKit's widget builder writes them."""

from typing import Any

from chatkit.widgets import DynamicWidgetRoot

Node = dict[str, Any]

# A square and a circle; 200 bytes do not need a file.
PICTURE = (
    "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHZpZXdCb3g9IjAgMCA2NCA2NCI+PHJlY3Q"
    "gd2lkdGg9IjY0IiBoZWlnaHQ9IjY0IiBmaWxsPSIjMTQ1Ii8+PGNpcmNsZSBjeD0iMzIiIGN5PSIzMiIgcj0iMjAiIGZpbGw9IiNmYjQiLz48L3N2Z"
    "z4="
)


def widget(root: Node) -> DynamicWidgetRoot:
    return DynamicWidgetRoot.model_validate(root)


def action(action_type: str, payload: Any = None, *, streaming: bool = True) -> Node:
    settings = {"handler": "server", "loadingBehavior": "auto", "streaming": streaming}
    return {"type": action_type, "payload": payload, **settings}


def text(value: str, **more: Any) -> Node:
    return {"type": "Text", "value": value, **more}


def button(label: str, on_click: Node, **more: Any) -> Node:
    return {"type": "Button", "label": label, "onClickAction": on_click, **more}


def card() -> DynamicWidgetRoot:
    head = {"type": "Row", "children": [text("Order 4711", weight="bold"), {"type": "Badge", "label": "on its way"}]}
    body = {"type": "Markdown", "value": "Two books and **one** lamp.\n\n- packed\n- sent"}
    return widget({"type": "Card", "size": "sm", "children": [{"type": "Col", "gap": 2, "children": [head, body]}]})


def list_view(chosen: str | None = None) -> DynamicWidgetRoot:
    def row(name: str) -> Node:
        label = {"type": "Badge", "label": "chosen"} if name == chosen else {"type": "Spacer"}
        on_click = action("demo.choose", {"name": name}, streaming=False)
        return {"type": "ListViewItem", "onClickAction": on_click, "children": [text(name), label]}

    return widget({"type": "ListView", "children": [row(name) for name in ("Lisbon", "Oslo", "Porto")]})


def form(confirmation: str | None = None) -> DynamicWidgetRoot:
    if confirmation is not None:
        return widget(
            {"type": "Card", "children": [text(confirmation), {"type": "Badge", "label": "sent", "color": "success"}]}
        )
    fields = [
        {"type": "Label", "value": "Your name", "fieldName": "name"},
        {"type": "Input", "name": "name", "required": True, "placeholder": "Ada"},
        {"type": "Button", "label": "Send", "submit": True},
    ]
    return widget(
        {"type": "Card", "children": [{"type": "Form", "onSubmitAction": action("demo.submit"), "children": fields}]}
    )


def buttons(count: int = 0) -> DynamicWidgetRoot:
    pressed = text({0: "Not pressed yet", 1: "Pressed once"}.get(count, f"Pressed {count} times"), id="count")
    more = button("Press me", action("demo.press", {"count": count}, streaming=False), style="primary")
    tell_more = button("Tell me more", action("demo.tell", {"about": "buttons"}))
    return widget({"type": "Card", "children": [pressed, {"type": "Row", "children": [more, tell_more]}]})


def picture() -> DynamicWidgetRoot:
    image = {"type": "Image", "src": PICTURE, "alt": "A yellow circle on dark blue", "size": 120}
    return widget({"type": "Card", "children": [image, text("A picture in a card")]})


def writing(value: str, *, done: bool, badge: str) -> DynamicWidgetRoot:
    """The states a widget goes through while it is being streamed: text grows, a component changes."""
    growing = {"type": "Markdown", "id": "text", "value": value, "streaming": not done}
    state = {"type": "Badge", "id": "state", "label": badge}
    return widget({"type": "Card", "size": "full" if done else "md", "children": [growing, state]})
